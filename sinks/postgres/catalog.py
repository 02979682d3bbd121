"""Reads what the lake has: its types, and the table under a target's name. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping

import psycopg

from cdc.schema import TableId, TableSchema
from sinks.postgres.ddl import LakeColumn, LakeTable
from sinks.postgres.sql import identifier, table_name
from sinks.postgres.types import LakeType, LakeTypes, lake_type

_TYPES = """
SELECT n.nspname, t.typname, t.typtype,
       CASE t.typtype WHEN 'e' THEN ARRAY(SELECT e.enumlabel::text FROM pg_enum e
                                           WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder) END
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
 WHERE t.typtype IN ('b', 'e', 'm', 'r') AND (t.typcategory <> 'A' OR t.typarray <> 0) AND t.typisdefined
    OR t.typtype = 'c' AND (SELECT c.relkind FROM pg_class c WHERE c.oid = t.typrelid) = 'c'
 ORDER BY t.typname, n.nspname <> 'public', n.nspname
"""

_TABLE = """
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %(schema)s),
       (SELECT c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = %(schema)s AND c.relname = %(name)s),
       to_regclass('cdc.tables') IS NOT NULL
"""

_COLUMNS = """
SELECT a.attname, a.atttypid::bigint, a.atttypmod, format_type(a.atttypid, a.atttypmod)
  FROM pg_attribute a
 WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
"""

_KEY = """
SELECT a.attname
  FROM pg_index i
  CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
 WHERE i.indrelid = to_regclass(%s) AND i.indisprimary AND i.indimmediate
 ORDER BY k.place
"""

_OWNER = """
SELECT source, source_schema, source_table, schema
  FROM cdc.tables
 WHERE lake_schema = %s AND lake_table = %s AND schema IS NOT NULL
"""

_FOREIGN_EQUALS = """
SELECT a.attname, n.nspname
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace n ON n.oid = t.typnamespace
 WHERE a.attrelid = to_regclass(%s) AND a.attname = ANY(%s)
   AND t.typtype = 'b' AND t.typcategory <> 'A' AND n.nspname <> 'pg_catalog'
"""

_WRITABLE = """
SELECT a.attname FROM pg_attribute a
 WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
"""


def read_types(connection: psycopg.Connection) -> LakeTypes:
    """Return the types that the lake has."""
    builtin: set[str] = set()
    base: dict[str, list[str]] = {}
    enums: dict[TableId, tuple[str, ...]] = {}
    others: set[TableId] = set()
    for schema, name, kind, labels in connection.execute(_TYPES):
        if schema == "pg_catalog":
            builtin.add(name)
        elif kind == "b":
            base.setdefault(name, []).append(schema)
        elif kind == "e":
            enums[TableId(schema, name)] = tuple(labels)
        else:
            others.add(TableId(schema, name))
    if not _reads_xml(connection):
        builtin.discard("xml")
    return LakeTypes(builtin=frozenset(builtin), base=base, enums=enums, others=frozenset(others))


def _reads_xml(connection: psycopg.Connection) -> bool:
    """Return whether the server was built with XML support; the type exists either way."""
    try:
        with connection.transaction():
            connection.execute("SELECT '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        return False
    return True


def read_table(connection: psycopg.Connection, target: TableId) -> LakeTable:
    """Return what the lake has under the target's name."""
    row = connection.execute(_TABLE, {"schema": target.schema, "name": target.name}).fetchone()
    schema_exists, kind, installed = row or (False, None, False)
    if kind is None:
        return LakeTable(schema_exists=schema_exists)
    name = table_name(target)
    columns = {
        column: LakeColumn((oid, modifier), text)
        for column, oid, modifier, text in connection.execute(_COLUMNS, (name,))
    }
    key = [column for (column,) in connection.execute(_KEY, (name,))]
    owner, owned = _owner(connection, target) if installed else (None, frozenset[str]())
    return LakeTable(schema_exists=True, kind=kind, owner=owner, owned=owned, columns=columns, key=key)


def expected_types(connection: psycopg.Connection, types: Mapping[str, LakeType]) -> dict[str, tuple[int, int]]:
    """Return (oid, modifier) by column, as the server reads the DDL; columns whose type doesn't exist are left out."""
    made = {
        name: kind.ddl for name, kind in types.items() if not any(s.startswith("CREATE TYPE") for s in kind.creates)
    }
    if not made:
        return {}
    cursor = connection.execute(f"SELECT {', '.join(f'NULL::{ddl}' for ddl in made.values())} LIMIT 0".encode())
    result = cursor.pgresult
    return {name: (result.ftype(i), result.fmod(i)) for i, name in enumerate(made)} if result else {}


def column_types(connection: psycopg.Connection, schema: TableSchema, target: TableId) -> dict[str, LakeType]:
    """Return each column's type in the lake."""
    lake = read_types(connection)
    return {column.name: lake_type(column, schema.dialect, lake, target.schema) for column in schema.columns}


def foreign_equals(connection: psycopg.Connection, target: TableId, key: tuple[str, ...]) -> dict[str, str]:
    """Return, by key column whose type an extension brought, the operator that compares it."""
    rows = connection.execute(_FOREIGN_EQUALS, (table_name(target), list(key)))
    return {column: f"OPERATOR({identifier(schema)}.=)" for column, schema in rows}


def writable_columns(connection: psycopg.Connection, target: TableId) -> list[str]:
    """Return all columns but generated ones, the users' too."""
    return [column for (column,) in connection.execute(_WRITABLE, (table_name(target),))]


def _owner(connection: psycopg.Connection, target: TableId) -> tuple[tuple[str, TableId] | None, frozenset[str]]:
    rows = connection.execute(_OWNER, target).fetchall()
    if not rows:
        return None, frozenset()
    source, schema, table, owned = rows[0]
    return (source, TableId(schema, table)), frozenset(column["name"] for column in owned["columns"])
