"""Measures how long a commit at the source takes until a reader of the lake sees it, from the outside.

A heartbeat is committed at a fixed rate, whether or not earlier ones have arrived, so that a stall counts for every
heartbeat that it held up and not just for one. The lake is polled, which adds up to ``_POLL_SECONDS`` to a figure.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import psycopg
from psycopg import sql

from cdc.demo.worker import Worker

_BEAT_SECONDS = 0.1
_POLL_SECONDS = 0.002
_IDLE_POLL_SECONDS = 0.02
_YOUNG_SECONDS = 0.1


class LagProbe(Worker):
    """Beats and measures; ``stop`` ends the heartbeats."""

    def __init__(self, source_dsn: str, lake_dsn: str, schema: str) -> None:
        super().__init__("lag probe")
        self.samples: list[float] = []
        self._source_dsn, self._lake_dsn, self._schema = source_dsn, lake_dsn, schema
        self._pending: deque[tuple[int, float]] = deque()
        self._beat = 0

    def wait_for_last(self, timeout_seconds: float) -> bool:
        """Commit one more heartbeat and wait until the lake has it, and with it everything committed before."""
        deadline = time.monotonic() + timeout_seconds
        with self._connect(self._source_dsn) as source, self._connect(self._lake_dsn) as lake:
            self._send(source)
            while self._pending and time.monotonic() < deadline:
                self._receive(lake)
                time.sleep(_POLL_SECONDS)
        return not self._pending

    def percentile(self, share: float) -> float | None:
        """Return the lag in seconds that this share of the heartbeats stayed within; None before the first."""
        ordered = sorted(self.samples)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None

    def work(self) -> None:
        """Beat and measure. The lake must have the table."""
        with self._connect(self._source_dsn) as source, self._connect(self._lake_dsn) as lake:
            due = time.monotonic()
            while not self._stop.is_set():
                if time.monotonic() >= due:
                    self._send(source)
                    due += _BEAT_SECONDS
                if self._pending:
                    self._receive(lake)
                young = self._pending and time.monotonic() - self._pending[0][1] < _YOUNG_SECONDS
                until_due = max(0.0, due - time.monotonic())
                self._stop.wait(min(until_due, _POLL_SECONDS if young else _IDLE_POLL_SECONDS))

    def _connect(self, dsn: str) -> psycopg.Connection[Any]:
        return psycopg.connect(dsn, autocommit=True)

    def _send(self, source: psycopg.Connection[Any]) -> None:
        self._beat += 1
        source.execute("UPDATE heartbeats SET beat = %s, at = now() WHERE id = 1", [self._beat])
        self._pending.append((self._beat, time.monotonic()))

    def _receive(self, lake: psycopg.Connection[Any]) -> None:
        row = lake.execute(sql.SQL("SELECT beat FROM {}.heartbeats").format(sql.Identifier(self._schema))).fetchone()
        now = time.monotonic()
        while row is not None and self._pending and self._pending[0][0] <= row[0]:
            self.samples.append(now - self._pending.popleft()[1])
