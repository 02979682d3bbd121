"""Initial copies: a few threads that bring pending tables into the lake while the stream of the others goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from queue import Empty, Queue
from threading import Event, Thread

from cdc.contracts import Lane, Source
from cdc.engine.journal import Journal
from cdc.engine.retry import delay_seconds
from cdc.engine.tables import TableBook
from cdc.errors import CdcError, DataError, OperatorError, RetryableError
from cdc.schema import TableId

log = logging.getLogger(__name__)

WORKERS = 2
"""Copies at a time: enough to keep a small lake busy, few enough not to be felt at the source."""


class Copier:
    """Copies tables as they are asked for; one table's failure never stops another's."""

    def __init__(self, source: Source, lane: Lane, tables: TableBook, *, journal: Journal, stop: Event) -> None:
        self._source = source
        self._lane = lane
        self._tables = tables
        self._journal = journal
        self._stop = stop
        self._wanted: Queue[tuple[TableId, DataError | None]] = Queue()
        self._threads = [
            Thread(target=self._work, name=f"{source.name}-copy-{n}", daemon=True) for n in range(1, WORKERS + 1)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def ask(self, tables: Sequence[TableId]) -> None:
        """Copy these pending tables, in this order."""
        for table in tables:
            self._wanted.put((table, None))

    def refuse(self, table: TableId, error: DataError) -> None:
        """Stop this table."""
        self._wanted.put((table, error))

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the threads to end; return whether they have."""
        deadline = time.monotonic() + timeout_seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                table, error = self._wanted.get(timeout=0.2)
            except Empty:
                continue
            if error is None:
                self._copy(table)
            else:
                self._give_up(table, self._tables.placements()[table].target, error)

    def _copy(self, table: TableId) -> None:
        """Copy one table, for as long as it takes, unless the error is its own."""
        attempt = 0
        while not self._stop.is_set():
            schema, target = self._tables.start_copy(table)
            started = time.monotonic()
            try:
                self._lane.prepare(schema, target)
                with self._source.copy(schema) as copy:
                    rows = self._lane.copy(copy, target)
            except RetryableError as error:
                attempt += 1
                log.warning("source %s: copy of %s: %s; starting it again", self._source.name, table, error)
                self._stop.wait(delay_seconds(error, attempt))
            except (DataError, OperatorError) as error:
                self._give_up(table, target, error)
                return
            except Exception as error:
                log.exception("source %s: copy of %s ended by a bug", self._source.name, table)
                self._give_up(table, target, DataError(f"{type(error).__name__}; see the log", table=str(table)))
                return
            else:
                self._tables.copied(copy, rows)
                seconds = time.monotonic() - started
                log.info("source %s: copied %s, %d rows in %.1f s", self._source.name, table, rows, seconds)
                self._journal.note("copied", f"{self._source.name} {table}", rows=rows, target=str(target))
                return
        self._tables.postpone(table)

    def _give_up(self, table: TableId, target: TableId, error: CdcError) -> None:
        """Stop a table, and store why; where the lake refuses even that, it is pending again after the next start."""
        hint = f"; {error.hint}" if isinstance(error, OperatorError) else ""
        reason = f"{error}{hint}"
        log.error("source %s: table %s stops, the others go on: %s", self._source.name, table, reason)
        attempt = 0
        while not self._stop.is_set():
            try:
                self._lane.fail(table, target, reason)
            except RetryableError as unavailable:
                attempt += 1
                self._stop.wait(delay_seconds(unavailable, attempt))
                continue
            except CdcError as refused:
                log.warning("source %s: the lake doesn't store that %s stopped: %s", self._source.name, table, refused)
            self._tables.fail(table, reason)
            self._journal.note("failed", f"{self._source.name} {table}", reason=reason)
            return
