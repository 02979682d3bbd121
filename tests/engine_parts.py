"""Groups, watermarks and lanes written by hand, for tests of the engine's parts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sink_batches import NumberedPosition, batch_of, insert, schema_of

from cdc.change import ChangeBatch
from cdc.contracts import LakeGroup, Progress, TableCopy
from cdc.errors import CdcError
from cdc.group import CommitGroup, Transactions
from cdc.position import Position
from cdc.schema import TableId, TableSchema

ORDERS, ITEMS = TableId("public", "orders"), TableId("public", "items")
LAKE = {table: TableId("lake", table.name) for table in (ORDERS, ITEMS)}


@dataclass
class Released:
    """Counts the releases of a group."""

    count: int = 0

    def __call__(self) -> None:
        self.count += 1


def group_at(
    number: int,
    rows: Mapping[TableId, Sequence[int]] | None = None,
    *,
    xids: Sequence[int] | None = None,
    released: Callable[[], None] = lambda: None,
    size_bytes: int = 0,
    broken: Mapping[TableId, CdcError] | None = None,
) -> CommitGroup:
    """Build a group at position ``number``, whose transactions committed at the seconds of their ids.

    Args:
        rows: for each table the transaction, as a place in ``xids``, of each of its inserts.
        broken: tables that raise where they are read.
    """
    ids = [number] if xids is None else list(xids)
    batches = [_batch(table, places) for table, places in (rows or {ORDERS: [0]}).items()]

    def read(tables: Collection[TableId]) -> Iterator[ChangeBatch]:
        for batch in batches:
            table = batch.schema.table
            if table in tables:
                if broken and table in broken:
                    raise broken[table]
                yield batch

    return CommitGroup(
        source="shop",
        position=NumberedPosition(number),
        transactions=Transactions(np.array(ids, np.int64), np.array(ids, np.int64) * 1_000_000),
        tables=frozenset(batch.schema.table for batch in batches),
        read=read,
        row_count=sum(map(len, batches)),
        size_bytes=size_bytes,
        release=released,
    )


def _batch(table: TableId, places: Sequence[int]) -> ChangeBatch:
    schema = replace(schema_of(), table=table)
    batch = batch_of(schema, [insert(id=str(place), note=None) for place in places])
    return replace(batch, transactions=np.array(places, np.int64))


@dataclass(frozen=True)
class MarkUpTo:
    """A watermark that covers the transactions with ids up to a number, and is passed at a position."""

    covered: int
    passed_at: int

    def covers(self, transactions: Transactions) -> Any:
        return transactions.ids <= self.covered

    def passed(self, position: Position) -> bool:
        return isinstance(position, NumberedPosition) and position.number >= self.passed_at

    def token(self) -> str:
        return f"{self.covered} {self.passed_at}"

    @classmethod
    def parse(cls, token: str) -> MarkUpTo:
        covered, passed_at = token.split()
        return cls(int(covered), int(passed_at))


@dataclass
class WrittenGroup:
    """What a lane has written of a group."""

    position: str
    rows: dict[TableId, list[str]]
    """Ids of the rows by lake table."""
    failed: dict[TableId, str]
    passed: list[TableId]


@dataclass
class ListLane:
    """A lake that is a list; before it writes a group it raises what ``troubles`` holds, one at a time."""

    troubles: list[CdcError] = field(default_factory=list)
    refused: dict[TableId, CdcError] = field(default_factory=dict)
    """Tables whose rows it never takes."""
    written: list[WrittenGroup] = field(default_factory=list)
    attempts: int = 0

    def apply(self, group: LakeGroup) -> None:
        self.attempts += 1
        rows: dict[TableId, list[str]] = {}
        for batch in group.batches():
            if batch.schema.table in self.refused:
                raise self.refused[batch.schema.table]
            rows.setdefault(group.targets[batch.schema.table], []).extend(batch.columns["id"].to_pylist())
        if self.troubles:
            raise self.troubles.pop(0)
        position = group.group.position.token()
        self.written.append(WrittenGroup(position, rows, dict(group.failed), list(group.passed)))

    def progress(self) -> Progress:
        return Progress()

    def begin(self, position: Position) -> None: ...

    def prepare(self, schema: TableSchema, target: TableId) -> None: ...

    def copy(self, copy: TableCopy, target: TableId) -> int:
        return 0

    def fail(self, table: TableId, target: TableId, reason: str) -> None: ...

    def close(self) -> None: ...
