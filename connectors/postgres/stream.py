"""The receiving loop: frames in, groups out, feedback back, whatever the consumer does. Runs in one thread."""

from __future__ import annotations

import time
from threading import Event

from cdc.contracts import Outlet, SourceHealth
from cdc.position import Position
from connectors.postgres.assembler import Assembler
from connectors.postgres.frames import Keepalive
from connectors.postgres.position import PostgresPosition
from connectors.postgres.replication import ReplicationConnection

PROBE_SECONDS = 1.0
"""How often the server is told how far we are and asked how far it is. It hangs up after ``wal_sender_timeout`` (a
minute by default) without a word from us; it must hear from us also while the lake is slow and nothing is read."""


MARK_SECONDS = 5.0
"""How often an idle stream's position is moved past other tables' log, after a first time as soon as it is idle.

The slot of a quiet table must not hold a busy server's log; but what the lake hasn't stored is never confirmed, so that
a lake that was put back to an earlier state is noticed.
"""


class PostgresStream:
    """One run of one source's stream.

    Args:
        connection: streaming already; ours to read from, not to close.
    """

    def __init__(
        self, connection: ReplicationConnection, assembler: Assembler, outlet: Outlet, start: PostgresPosition
    ) -> None:
        self._connection = connection
        self._assembler = assembler
        self._outlet = outlet
        self._start_lsn = self._acknowledged = start.lsn
        self._offered = start.lsn
        self._confirmed = 0
        self._next_probe = 0.0
        self._next_mark = 0.0
        self._wal_end = 0
        self._head: tuple[float, int] = (0.0, 0)
        self._caught_up_at = 0.0
        self._skew_seconds: float | None = None

    def run(self, stop: Event) -> None:
        """Receive and offer until ``stop`` is set."""
        while not stop.is_set():
            wait_seconds = max(0.0, self._next_probe - time.monotonic())
            if self._assembler.peek() is None:
                keepalive = self._assembler.feed(self._connection.receive(wait_seconds))
            else:
                self._connection.wait(wait_seconds)
                keepalive = None
            if self._outlet.wanted():
                self._assembler.seal()
            self._offer()
            if keepalive is not None:
                self._on_keepalive(keepalive)
            self._confirm(asked=keepalive is not None and keepalive.reply_requested)

    def acknowledge(self, position: Position) -> None:
        """Note that everything up to ``position`` is durable. Any thread."""
        if isinstance(position, PostgresPosition) and position.lsn > self._acknowledged:
            self._acknowledged = position.lsn
        self._connection.wake()

    def health(self) -> SourceHealth:
        """Return what the stream knows of itself. Any thread; the figures may be of slightly different moments."""
        oldest_us = self._assembler.oldest_commit_us
        skew = self._skew_seconds or 0.0
        return SourceHealth(
            connected=True,
            caught_up_at=self._caught_up_at,
            oldest_pending_commit=None if oldest_us is None else oldest_us / 1e6 + skew,
            buffered_bytes=self._assembler.memory_bytes,
            spilled_bytes=self._assembler.spilled_bytes,
            clock_skew_seconds=skew,
        )

    def wake(self) -> None:
        """Make the loop look around now. Any thread."""
        self._connection.wake()

    def note_head(self, asked_at: float, lsn: int) -> None:
        """Note how far the server was at ``asked_at`` (UNIX seconds). Any thread."""
        self._head = (asked_at, lsn)
        if not self._caught_up_at:
            self._next_probe = 0.0
            self._connection.wake()

    def _offer(self) -> None:
        group = self._assembler.peek()
        if group is not None and self._outlet.offer(group, 0.0):
            self._assembler.pop()
            if isinstance(group.position, PostgresPosition):
                self._offered = group.position.lsn
            if len(group.transactions):
                self._next_mark = 0.0

    @property
    def _nothing_in_flight(self) -> bool:
        return self._assembler.is_idle and self._acknowledged >= self._offered

    def _on_keepalive(self, keepalive: Keepalive) -> None:
        now = time.time()
        self._wal_end = max(self._wal_end, keepalive.wal_end)
        observed = now - keepalive.server_time_us / 1e6
        # One that waited in a buffer says too much: only the least is near the truth, and clocks drift slowly.
        self._skew_seconds = observed if self._skew_seconds is None else min(observed, self._skew_seconds + 0.001)
        asked_at, head_lsn = self._head
        if self._nothing_in_flight and asked_at and keepalive.wal_end >= head_lsn:
            self._caught_up_at = max(self._caught_up_at, asked_at)
        if self._nothing_in_flight and keepalive.wal_end > self._acknowledged and time.monotonic() >= self._next_mark:
            self._next_mark = time.monotonic() + MARK_SECONDS
            self._assembler.mark(keepalive.wal_end)
            self._offer()

    def _confirm(self, *, asked: bool) -> None:
        """Send feedback where there is news, the server asked, or a probe is due."""
        now = time.monotonic()
        probe = now >= self._next_probe
        flushed = self._acknowledged
        self._assembler.settle(self._acknowledged)
        if self._acknowledged <= self._start_lsn:
            # Transactions that were prepared before the start and have no outcome yet come first.
            flushed = min(flushed, self._wal_end)
        if self._assembler.hold_lsn is not None:
            flushed = min(flushed, self._assembler.hold_lsn)
        flushed = max(flushed, self._confirmed)
        if not (probe or asked or flushed > self._confirmed):
            return
        self._connection.confirm(max(self._assembler.received_lsn, flushed), flushed, probe=probe)
        self._confirmed = flushed
        if probe:
            self._next_probe = now + PROBE_SECONDS
