"""Reads tables and types from the source's catalog into ``TableSchema``; one query each, no locks.

It knows the catalog's layout; what a type means is said in ``oids.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from cdc.schema import Column, RowIdentity, TableId, TableSchema
from cdc.selection import selects
from connectors.postgres.oids import TypeRow, resolve

_TABLES = """
SELECT c.oid, n.nspname, c.relname, c.relkind = 'p' AS partitioned, c.relreplident,
       GREATEST(c.reltuples, 0)::bigint AS estimated_rows,
       has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') AS readable,
       pg_get_userbyid(c.relowner) AS owner, pg_has_role(c.relowner, 'USAGE') AS owned
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
 ORDER BY n.nspname, c.relname
"""

_COLUMNS = """
SELECT a.attrelid, a.attname, a.atttypid, a.atttypmod, a.attnotnull,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS type_text, a.attgenerated
  FROM pg_catalog.pg_attribute a
 WHERE a.attrelid = ANY(%s) AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attrelid, a.attnum
"""

_KEYS = """
SELECT i.indrelid, i.indisprimary, i.indisreplident, i.indimmediate,
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, ord)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
              WHERE k.ord <= i.indnkeyatts ORDER BY k.ord) AS names
  FROM pg_catalog.pg_index i
 WHERE i.indrelid = ANY(%s) AND i.indisvalid AND (i.indisprimary OR i.indisreplident)
"""

_TYPES = """
SELECT t.oid, n.nspname, t.typname, t.typtype, t.typbasetype, t.typtypmod, t.typelem,
       t.typcategory = 'A' AND t.typelem <> 0 AND t.typname NOT IN ('int2vector', 'oidvector') AS is_array,
       pg_catalog.format_type(t.oid, NULL) AS text,
       ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)
         AS labels,
       COALESCE((SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid {multirange}), 0)
         AS subtype,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
         AS attribute_names,
       ARRAY(SELECT a.atttypid::int8 FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
         AS attribute_types,
       ARRAY(SELECT a.atttypmod FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
         AS attribute_modifiers
  FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
 WHERE t.oid = ANY(%s)
"""


@dataclass(frozen=True, slots=True)
class CatalogTable:
    """A table as the catalog has it.

    Attributes:
        wire: name, type oid and type modifier of each column that the stream sends, in its order.
        left_out: generated columns that the stream doesn't send; they aren't in ``schema``.
        partitioned: changes are published under this root's name.
        key_deferrable: its primary key is checked at commit, so it can't identify rows.
    """

    oid: int
    schema: TableSchema
    wire: tuple[tuple[str, int, int], ...]
    left_out: tuple[str, ...]
    partitioned: bool
    replica_identity: str
    key_deferrable: bool
    estimated_rows: int
    readable: bool
    owner: str
    owned: bool


def read_tables(connection: psycopg.Connection, patterns: Sequence[str]) -> dict[TableId, CatalogTable]:
    """Return the tables that the patterns select, by name."""
    cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
    found = [r for r in cursor.execute(_TABLES) if selects(patterns, TableId(r["nspname"], r["relname"]))]
    oids = [row["oid"] for row in found]
    columns: dict[int, list[Mapping[str, Any]]] = {oid: [] for oid in oids}
    for row in cursor.execute(_COLUMNS, (oids,)):
        columns[row["attrelid"]].append(row)
    indexes: dict[int, list[Mapping[str, Any]]] = {oid: [] for oid in oids}
    for row in cursor.execute(_KEYS, (oids,)):
        indexes[row["indrelid"]].append(row)
    types = _read_types(cursor, {c["atttypid"] for rows in columns.values() for c in rows})
    stored_are_sent = connection.info.server_version >= 180000
    tables = [_table(row, columns[row["oid"]], indexes[row["oid"]], types, stored_are_sent) for row in found]
    return {table.schema.table: table for table in tables}


def _read_types(cursor: psycopg.Cursor[Any], oids: set[int]) -> dict[int, TypeRow]:
    """Return these types and all that they are made of."""
    multirange = "OR r.rngmultitypid = t.oid" if cursor.connection.info.server_version >= 140000 else ""
    query = _TYPES.format(multirange=multirange)
    types: dict[int, TypeRow] = {}
    missing = oids
    while missing:
        rows = [TypeRow(**row) for row in cursor.execute(query, (sorted(missing),))]
        types |= {row.oid: row for row in rows}
        missing = {oid for row in rows for oid in row.parts()} - types.keys()
    return types


def _table(
    row: Mapping[str, Any],
    columns: Sequence[Mapping[str, Any]],
    indexes: Sequence[Mapping[str, Any]],
    types: Mapping[int, TypeRow],
    stored_are_sent: bool,
) -> CatalogTable:
    identity, key = _identity(row["relreplident"], indexes)
    sent = [c for c in columns if not c["attgenerated"] or (stored_are_sent and c["attgenerated"] == "s")]
    schema = TableSchema(
        table=TableId(row["nspname"], row["relname"]),
        dialect="postgres",
        identity=identity,
        columns=tuple(
            Column(
                name=c["attname"],
                type=resolve(c["atttypid"], c["atttypmod"], types),
                source_type=c["type_text"],
                nullable=not c["attnotnull"],
                key_ordinal=key.index(c["attname"]) if c["attname"] in key else None,
            )
            for c in sent
        ),
    )
    return CatalogTable(
        oid=row["oid"],
        schema=schema,
        wire=tuple((c["attname"], c["atttypid"], c["atttypmod"]) for c in sent),
        left_out=tuple(c["attname"] for c in columns if c not in sent),
        partitioned=row["partitioned"],
        replica_identity=row["relreplident"],
        key_deferrable=any(i["indisprimary"] and not i["indimmediate"] for i in indexes),
        estimated_rows=row["estimated_rows"],
        readable=row["readable"],
        owner=row["owner"],
        owned=row["owned"],
    )


def _identity(replica_identity: str, indexes: Sequence[Mapping[str, Any]]) -> tuple[RowIdentity, list[str]]:
    """Return how rows are found again, and by which columns.

    Under FULL a deferrable primary key serves too, since the whole old row is sent; otherwise Postgres itself doesn't
    count it as an identity.
    """
    primary = next((i for i in indexes if i["indisprimary"]), None)
    chosen = next((i for i in indexes if i["indisreplident"]), None)
    if replica_identity == "f":
        return (RowIdentity.KEY, primary["names"]) if primary else (RowIdentity.FULL_ROW, [])
    if replica_identity == "d" and primary and primary["indimmediate"]:
        return RowIdentity.KEY, primary["names"]
    if replica_identity == "i" and chosen:
        return RowIdentity.KEY, chosen["names"]
    return RowIdentity.APPEND, []
