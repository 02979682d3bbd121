"""Which transactions a copy of a table holds: those that its snapshot saw. Pure.

A snapshot is exact where an LSN is not: a transaction's commit record is in the log a moment before other sessions see
its rows. The stream's Begin message names the transaction's id, so each one is in the copy or it isn't.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cdc.change import Mask1D
from cdc.errors import DecodeError
from cdc.group import Transactions
from cdc.position import Position
from connectors.postgres.lsn import format_lsn, parse_lsn
from connectors.postgres.position import PostgresPosition


@dataclass(frozen=True, slots=True)
class SnapshotWatermark:
    """The snapshot under which a table was copied.

    Ids are the wire's 32 bits; two of them that matter together are never 2^31 apart, which is Postgres' own rule.

    Attributes:
        xmin: every id before it was over when the snapshot was taken.
        xmax: no id from here on was.
        running: ids between them that weren't over.
        lsn: the log's end, read after the snapshot was taken: every transaction that the snapshot saw commits before.

    Spec: PostgreSQL 18, "System Information Functions", pg_snapshot,
    https://www.postgresql.org/docs/18/functions-info.html#FUNCTIONS-PG-SNAPSHOT
    """

    xmin: int
    xmax: int
    running: frozenset[int]
    lsn: int

    @classmethod
    def of(cls, snapshot: str, lsn: int) -> SnapshotWatermark:
        """Read the text of ``pg_current_snapshot()``: ``xmin:xmax:id,id,...`` with 64-bit ids.

        Raises:
            DecodeError: it isn't such a text.
        """
        try:
            xmin, xmax, running = snapshot.split(":")
            ids = frozenset(int(xid) & 0xFFFFFFFF for xid in running.split(",") if xid)
            return cls(int(xmin) & 0xFFFFFFFF, int(xmax) & 0xFFFFFFFF, ids, lsn)
        except ValueError as error:
            raise DecodeError("snapshot: expected xmin:xmax:ids") from error

    @classmethod
    def parse(cls, token: str) -> SnapshotWatermark:
        """Read what ``token`` wrote."""
        lsn, _, snapshot = token.partition(" ")
        return cls.of(snapshot, parse_lsn(lsn))

    def token(self) -> str:
        """Return the LSN and the snapshot."""
        running = ",".join(str(xid) for xid in sorted(self.running))
        return f"{format_lsn(self.lsn)} {self.xmin}:{self.xmax}:{running}"

    def covers(self, transactions: Transactions) -> Mask1D:
        """Return for each transaction whether the snapshot saw it."""
        ids = transactions.ids.astype(np.uint32)
        before_xmin = (ids - np.uint32(self.xmin)).astype(np.int32) < 0
        before_xmax = (ids - np.uint32(self.xmax)).astype(np.int32) < 0
        if not self.running:
            return before_xmax
        was_running = np.isin(ids, np.fromiter(self.running, dtype=np.uint32, count=len(self.running)))
        return before_xmin | (before_xmax & ~was_running)

    def passed(self, position: Position) -> bool:
        """Return whether ``position`` is behind every transaction that the snapshot saw."""
        return isinstance(position, PostgresPosition) and position.lsn >= self.lsn
