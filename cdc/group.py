"""Whole source transactions on their way to the lake: the unit that a sink applies atomically."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cdc.change import ChangeBatch, Index1D
from cdc.position import Position
from cdc.schema import TableId


@dataclass(frozen=True, slots=True, eq=False)
class Transactions:
    """A group's transactions in commit order, as columns.

    Attributes:
        ids: the source's own ids: int64 (Postgres' xid) or objects (GTID).
        commit_times_us: int64, the source's clock, microseconds since 1970-01-01 UTC.
    """

    ids: np.ndarray[tuple[int], np.dtype[Any]]
    commit_times_us: Index1D

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class CommitGroup:
    """One or more whole transactions of one source, over all tables, closed by a position.

    Attributes:
        position: applying the group brings the lake to here; resuming from here repeats nothing.
        tables: all tables that the group has changes of.
        read: yields the batches of these source tables, in commit order per table. It may be called again (a retry
            starts over), decodes and reads spilled transactions from disk as it goes, and so never holds more than a
            slice of one in memory. Raises ``DataError`` for a table whose rows can't be decoded.
        row_count: rows in all batches, before any is filtered.
        size_bytes: bytes as received.
    """

    source: str
    position: Position
    transactions: Transactions
    tables: frozenset[TableId]
    read: Callable[[Collection[TableId]], Iterator[ChangeBatch]]
    row_count: int
    size_bytes: int
    release: Callable[[], None] = lambda: None
    """Frees what the group holds on disk; call it once, when the group is durable or abandoned."""


def marker(source: str, position: Position) -> CommitGroup:
    """Return a group without rows: it says that all up to ``position`` has been seen, and nothing of it is wanted."""
    nothing = np.zeros(0, dtype=np.int64)
    return CommitGroup(
        source=source,
        position=position,
        transactions=Transactions(nothing, nothing),
        tables=frozenset(),
        read=lambda _tables: iter(()),
        row_count=0,
        size_bytes=0,
    )
