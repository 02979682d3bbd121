"""Builds tables as the source's catalog has them, for tests without a server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cdc.schema import Column, RowIdentity, TableId, TableSchema, Text
from connectors.postgres.catalog import CatalogTable


def table_of(table: TableId, identity: RowIdentity = RowIdentity.KEY, **other: Any) -> CatalogTable:
    """Return a table of two texts in good order; ``other`` replaces what is to be wrong."""
    key = 0 if identity is RowIdentity.KEY else None
    columns = (Column("id", Text(), "text", nullable=False, key_ordinal=key), Column("note", Text(), "text"))
    found = CatalogTable(
        oid=16385,
        schema=TableSchema(table, "postgres", columns, identity),
        wire=(("id", 25, -1), ("note", 25, -1)),
        left_out=(),
        partitioned=False,
        replica_identity="d",
        key_deferrable=False,
        estimated_rows=0,
        readable=True,
        owner="owner",
        owned=True,
    )
    return replace(found, **other)
