"""Our publications at the source: what they should hold, what they hold, and the statements in between.

There are two, because Postgres refuses updates and deletes of a table without a replica identity as soon as any
publication that publishes them holds it. Such tables go into the one that publishes inserts and truncates only, so that
the application never notices us.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from cdc.contracts import Step
from cdc.schema import RowIdentity, TableId
from connectors.postgres.catalog import CatalogTable

_MEMBERS = """
SELECT n.nspname, c.relname, pr.oid
  FROM pg_catalog.pg_publication p
  JOIN pg_catalog.pg_publication_rel pr ON pr.prpubid = p.oid
  JOIN pg_catalog.pg_class c ON c.oid = pr.prrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE p.pubname = %s
"""


@dataclass(frozen=True, slots=True)
class Publication:
    """One publication as it is.

    Attributes:
        members: oid of the membership (pg_publication_rel) by table: it changes when a table is taken out and put back.
    """

    name: str
    exists: bool
    members: Mapping[TableId, int]


@dataclass(frozen=True, slots=True)
class PublicationNames:
    """The names of a source's two publications."""

    changes: str
    inserts: str

    def for_table(self, table: CatalogTable) -> str:
        """Return the publication that should hold the table."""
        return self.inserts if table.schema.identity is RowIdentity.APPEND else self.changes


def read_publication(connection: psycopg.Connection, name: str) -> Publication:
    """Return what the catalog says of a publication."""
    exists = connection.execute("SELECT 1 FROM pg_catalog.pg_publication WHERE pubname = %s", (name,)).fetchone()
    rows = connection.execute(_MEMBERS, (name,)).fetchall()
    return Publication(name, exists is not None, {TableId(schema, table): oid for schema, table, oid in rows})


def read_publications(connection: psycopg.Connection, names: PublicationNames) -> tuple[Publication, Publication]:
    """Return both publications as they are."""
    return read_publication(connection, names.changes), read_publication(connection, names.inserts)


def steps(
    names: PublicationNames,
    current: Sequence[Publication],
    tables: Iterable[CatalogTable],
    server_version: int,
) -> list[Step]:
    """Return the statements that make the publications hold exactly these tables."""
    wanted: dict[str, list[TableId]] = {names.changes: [], names.inserts: []}
    for table in tables:
        wanted[names.for_table(table)].append(table.schema.table)
    plan: list[Step] = []
    for publication in current:
        selected = set(wanted[publication.name])
        if not publication.exists:
            events = "insert, truncate" if publication.name == names.inserts else "insert, update, delete, truncate"
            plan.append(_create(publication.name, events, server_version))
        gone = sorted(publication.members.keys() - selected)
        new = sorted(selected - publication.members.keys())
        if gone:
            plan.append(_alter(publication.name, "DROP", gone))
        if new:
            plan.append(_alter(publication.name, "ADD", new))
    return sorted(plan, key=lambda step: " ADD TABLE " in step.sql)


def _create(name: str, events: str, server_version: int) -> Step:
    options = f"publish = '{events}', publish_via_partition_root = true"
    if server_version >= 180000:
        options += ", publish_generated_columns = stored"
    statement = sql.SQL("CREATE PUBLICATION {} WITH ({})").format(sql.Identifier(name), sql.SQL(options))
    return Step(where="source", summary=f"create publication {name} for {events}", sql=statement.as_string())


def _alter(name: str, verb: str, tables: Sequence[TableId]) -> Step:
    listed = sql.SQL(", ").join(sql.Identifier(*table) for table in tables)
    statement = sql.SQL("ALTER PUBLICATION {} {} TABLE {}").format(sql.Identifier(name), sql.SQL(verb), listed)
    words = {"ADD": "add", "DROP": "take out"}[verb]
    summary = f"{words} {len(tables)} table{'s' * (len(tables) != 1)}: {', '.join(map(str, tables))}"
    return Step(where="source", summary=f"publication {name}: {summary}", sql=statement.as_string())
