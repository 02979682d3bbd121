"""Feeds an assembler and reads what it gives, for tests: two tables that are wanted, and one that isn't."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pgoutput_frames as sent

from cdc.change import ChangeBatch, Op
from cdc.group import CommitGroup
from cdc.schema import Column, RowIdentity, TableId, TableSchema, Text
from connectors.postgres import messages as wire
from connectors.postgres.assembler import Assembler
from connectors.postgres.pieces import Layout
from connectors.postgres.position import PostgresPosition

COLUMNS = ("id", "note")
ORDERS, ITEMS, SECRETS = 16385, 16386, 16390
NAMES = {ORDERS: "orders", ITEMS: "items", SECRETS: "secrets"}
WANTED = {oid: TableId("public", NAMES[oid]) for oid in (ORDERS, ITEMS)}
TABLES = frozenset(WANTED.values())
SYSTEM, TIMELINE = "7300000000000000001", 1
START_US = 1_700_000_000_000_000


class Seen(NamedTuple):
    """A row as a sink sees it; ``cells`` are the old key for deletes and nothing for truncates."""

    op: Op
    cells: tuple[str | None, ...]
    xid: int
    ordinal: int


def position(lsn: int) -> PostgresPosition:
    return PostgresPosition(SYSTEM, TIMELINE, lsn)


def schema_of(table: TableId) -> TableSchema:
    columns = tuple(Column(name, Text(), "text", key_ordinal=0 if name == "id" else None) for name in COLUMNS)
    return TableSchema(table, "postgres", columns, RowIdentity.KEY)


def layout_of(relation: wire.Relation) -> Layout | None:
    """Say how a relation is to be read, as the source does: by what the catalog has of its oid."""
    table = WANTED.get(relation.oid)
    if table is None:
        return None
    names = tuple(column.name for column in relation.columns)
    return Layout(names, schema_of(table), "" if names == COLUMNS else f"table {table}: its columns changed")


def assembler_from(lsn: int = 0) -> Assembler:
    return Assembler("shop", position(lsn), layout_of)


def relations(*oids: int, subxid: int | None = None) -> list[bytes]:
    """Describe these tables, or all."""
    return [sent.relation(oid, NAMES[oid], subxid=subxid) for oid in oids or NAMES]


def transaction(xid: int, *rows: bytes, commit_lsn: int | None = None, end_lsn: int | None = None) -> list[bytes]:
    """Return a plain transaction; its LSNs and its time follow from its id where they aren't given."""
    commit_lsn = xid * 100 if commit_lsn is None else commit_lsn
    end_lsn = commit_lsn + 50 if end_lsn is None else end_lsn
    time_us = START_US + xid
    return [
        sent.begin(xid, commit_lsn=commit_lsn, time_us=time_us),
        *rows,
        sent.commit(commit_lsn=commit_lsn, end_lsn=end_lsn, time_us=time_us),
    ]


def taken(assembler: Assembler) -> list[CommitGroup]:
    """Seal, and take all groups that are there."""
    assembler.seal()
    groups = []
    while (group := assembler.peek()) is not None:
        assembler.pop()
        groups.append(group)
    return groups


def group_from(*frames: bytes, start: int = 0) -> CommitGroup:
    """Feed frames to an assembler that knows all tables, and take the one group that they make."""
    assembler = assembler_from(start)
    assembler.feed([*relations(), *frames])
    (group,) = taken(assembler)
    return group


def seen_in(batch: ChangeBatch, ids: Sequence[int]) -> list[Seen]:
    """Return a batch's rows; ``ids`` are those of its group's transactions."""
    rows = []
    for place, number in enumerate(batch.ops.tolist()):
        op = Op(number)
        columns = {Op.DELETE: batch.old, Op.TRUNCATE: {}}.get(op, batch.columns)
        cells = tuple(array[place].as_py() for array in columns.values())
        rows.append(Seen(op, cells, ids[int(batch.transactions[place])], int(batch.ordinals[place])))
    return rows


def rows_by_table(groups: Iterable[CommitGroup], tables: Iterable[TableId] = TABLES) -> dict[TableId, list[Seen]]:
    """Return the rows of these tables over all groups, in the order in which they are read."""
    rows: dict[TableId, list[Seen]] = {}
    for group in groups:
        ids = group.transactions.ids.tolist()
        for batch in group.read(set(tables)):
            rows.setdefault(batch.schema.table, []).extend(seen_in(batch, ids))
    return rows
