"""Builds schemas, batches and groups for tests of sinks, from plain Python values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import total_ordering
from typing import Any

import numpy as np
import pyarrow as pa

from cdc.change import ChangeBatch, OldImage, Op, Presence
from cdc.contracts import LakeGroup, TableCopy
from cdc.group import CommitGroup, Transactions
from cdc.schema import Column, Int, LogicalType, RowIdentity, TableId, TableSchema, Text

UNCHANGED = object()
"""A cell that the source didn't repeat."""


@total_ordering
@dataclass(frozen=True)
class NumberedPosition:
    """A position that is a number."""

    number: int
    identity: str = "server"

    def token(self) -> str:
        return f'{{"n": {self.number}}}'

    def display(self) -> str:
        return str(self.number)

    def __lt__(self, other: Any) -> bool:
        return bool(self.number < other.number)


@dataclass(frozen=True)
class FixedWatermark:
    """A watermark that only has a token."""

    text: str = '{"mark": 1}'

    def covers(self, transactions: Transactions) -> Any:
        return np.zeros(len(transactions), np.bool_)

    def passed(self, position: Any) -> bool:
        return False

    def token(self) -> str:
        return self.text


@dataclass
class Change:
    """One row's change; ``old`` and ``image`` say what the source sent of the row before."""

    op: Op
    new: Mapping[str, Any] | None = None
    old: Mapping[str, Any] | None = None
    image: OldImage = field(default=OldImage.NONE)


def insert(**new: Any) -> Change:
    return Change(Op.INSERT, new)


def update(new: Mapping[str, Any], old: Mapping[str, Any] | None = None, *, whole: bool = False) -> Change:
    image = OldImage.NONE if old is None else OldImage.ROW if whole else OldImage.KEY
    return Change(Op.UPDATE, new, old, image)


def delete(old: Mapping[str, Any], *, whole: bool = False) -> Change:
    return Change(Op.DELETE, None, old, OldImage.ROW if whole else OldImage.KEY)


def schema_of(
    name: str = "public.items",
    columns: Sequence[tuple[str, str, LogicalType]] = (("id", "integer", Int(32)), ("note", "text", Text())),
    *,
    key: Sequence[str] = ("id",),
    identity: RowIdentity = RowIdentity.KEY,
    dialect: str = "postgres",
) -> TableSchema:
    return TableSchema(
        table=TableId.parse(name),
        dialect=dialect,
        identity=identity,
        columns=tuple(
            Column(n, kind, text, nullable=n not in key, key_ordinal=key.index(n) if n in key else None)
            for n, text, kind in columns
        ),
    )


def batch_of(schema: TableSchema, changes: Sequence[Change]) -> ChangeBatch:
    """Build a batch; all columns of the schema are sent."""
    columns, presence, old = {}, {}, {}
    for name in schema.names:
        cells = [None if c.new is None else c.new.get(name) for c in changes]
        columns[name] = pa.array([None if cell is UNCHANGED else cell for cell in cells], pa.string())
        states = np.array([Presence.UNCHANGED if cell is UNCHANGED else Presence.VALUE for cell in cells], np.uint8)
        if states.any():
            presence[name] = states
        if any(c.old is not None for c in changes):
            old[name] = pa.array([None if c.old is None else c.old.get(name) for c in changes], pa.string())
    images = np.array([c.image for c in changes], np.uint8)
    return ChangeBatch(
        schema=schema,
        ops=np.array([c.op for c in changes], np.uint8),
        transactions=np.zeros(len(changes), np.int64),
        ordinals=np.arange(len(changes)),
        columns=columns,
        presence=presence,
        old=old,
        old_images=images if images.any() else None,
    )


def truncate_of(schema: TableSchema) -> ChangeBatch:
    return ChangeBatch(
        schema=schema,
        ops=np.array([Op.TRUNCATE], np.uint8),
        transactions=np.zeros(1, np.int64),
        ordinals=np.zeros(1, np.int64),
        columns={},
        presence={},
        old={},
    )


def group_of(
    number: int, *batches: ChangeBatch, row_count: int | None = None, source: str = "shop", **lake: Any
) -> LakeGroup:
    """Build a group at position ``number``; tables go into the lake schema ``lake`` under their own names."""
    group = CommitGroup(
        source=source,
        position=NumberedPosition(number),
        transactions=Transactions(np.array([number]), np.array([number * 1_000_000], np.int64)),
        tables=frozenset(batch.schema.table for batch in batches),
        read=lambda tables: (batch for batch in batches if batch.schema.table in tables),
        row_count=sum(map(len, batches)) if row_count is None else row_count,
        size_bytes=0,
    )
    targets = {batch.schema.table: target_of(batch.schema) for batch in batches}
    return LakeGroup(group=group, targets=lake.pop("targets", {}) | targets, **lake)


def target_of(schema: TableSchema) -> TableId:
    return TableId("lake", schema.table.name)


def copy_of(schema: TableSchema, text: str, token: str = '{"mark": 1}') -> TableCopy:
    """Build an initial copy of rows in COPY's text format, in chunks of one line."""

    def chunks() -> Iterator[bytes]:
        for line in text.splitlines(keepends=True):
            yield line.encode()

    return TableCopy(schema, FixedWatermark(token), chunks())
