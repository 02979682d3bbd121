"""The apply thread of one source: hand-over, topology, lake, and then the acknowledgement."""

from __future__ import annotations

import logging
import time
from threading import Event

from cdc.contracts import Lane, Source
from cdc.engine.handover import Handover
from cdc.engine.journal import Journal
from cdc.engine.retry import delay_seconds
from cdc.engine.tables import TableBook
from cdc.errors import RetryableError
from cdc.group import CommitGroup
from cdc.metrics import ApplyMetrics
from cdc.topology import Stages

log = logging.getLogger(__name__)

TAKE_SECONDS = 0.5


class Applier:
    """Applies one source's groups in order. One thread runs it.

    Attributes:
        trouble: what keeps the lake from taking the current group; None while all is well.
        committed_at: commit time (UNIX seconds, the source's clock) of the last durable transaction.
        position: display form of the last durable position.
        transactions: applied so far.
    """

    def __init__(
        self,
        source: Source,
        lane: Lane,
        handover: Handover,
        tables: TableBook,
        *,
        metrics: ApplyMetrics,
        journal: Journal,
    ) -> None:
        self._source = source
        self._handover = handover
        self._tables = tables
        self._metrics = metrics
        self._journal = journal
        self._stages = Stages(lane)
        self.trouble: RetryableError | None = None
        self.committed_at: float | None = None
        self.position: str | None = None
        self.transactions = 0

    def run(self, stop: Event) -> None:
        """Apply groups until ``stop`` is set.

        Raises:
            CdcError: the group can't be applied, and waiting doesn't help.
        """
        try:
            while not stop.is_set():
                group = self._handover.take(TAKE_SECONDS)
                if group is None:
                    continue
                if not self._tables.await_copies(group.tables, stop.is_set):
                    return
                if not self._apply(group, stop):
                    return
                self._source.acknowledge(group.position)
                self._handover.done()
        finally:
            self._handover.clear()

    def _apply(self, group: CommitGroup, stop: Event) -> bool:
        """Apply a group, for as long as it takes; return False if ``stop`` came first."""
        attempt = 0
        while True:
            started = time.monotonic()
            try:
                applied = self._stages.apply(group, self._tables.placements())
            except RetryableError as error:
                attempt += 1
                if self.trouble is None or str(error) != str(self.trouble):
                    log.warning("source %s: %s; trying again until it works", self._source.name, error)
                self.trouble = error
                if stop.wait(delay_seconds(error, attempt)):
                    return False
                continue
            break
        if self.trouble is not None:
            log.info("source %s: the lake takes changes again", self._source.name)
            self.trouble = None
        for table, reason in applied.failed.items():
            log.error("source %s: table %s stops, the others go on: %s", self._source.name, table, reason)
            self._tables.fail(table, reason)
            self._journal.note("failed", f"{self._source.name} {table}", reason=reason)
        self._tables.applied(applied)
        self.position = group.position.display()
        if len(group.transactions):
            self.committed_at = float(group.transactions.commit_times_us[-1]) / 1e6
            self.transactions += len(group.transactions)
            self._metrics.observe(group.source, time.monotonic() - started, group.row_count)
        return True
