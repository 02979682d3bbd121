"""One source, from start to stop: prepares it, runs its threads, watches over them, and starts again after an error."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event, Thread

from cdc.config import SourceConfig
from cdc.contracts import LakeGroup, Lane, Sink, Source, SourceHead, TableState
from cdc.engine.apply import Applier
from cdc.engine.copying import Copier
from cdc.engine.freshness import DrainRate, lag_seconds
from cdc.engine.handover import Handover
from cdc.engine.journal import Journal
from cdc.engine.retry import delay_seconds, state_after
from cdc.engine.tables import TableBook
from cdc.errors import CdcError, DataError, OperatorError, RetryableError, SchemaChangedError
from cdc.group import marker
from cdc.metrics import ApplyMetrics
from cdc.objectives import RpoBudget
from cdc.position import Position
from cdc.schema import TableId, TableSchema
from cdc.status import SourceState, SourceStatus
from cdc.topology import lake_names

log = logging.getLogger(__name__)

TICK_SECONDS = 0.5
FIRST_TICK_SECONDS = 0.02
"""Until the source has said how far it is: then its lag is known, and not before is it called streaming."""
HEAD_SECONDS = 1.0
"""How often the source is asked how far it is: the resolution of an idle source's lag."""
STOP_SECONDS = 4.0
"""How long the threads may take to end; what is not durable by then is rolled back and sent again after the start."""


@dataclass(slots=True)
class _Run:
    """The threads of one attempt, and what they share."""

    applier: Applier
    handover: Handover
    copier: Copier
    stop: Event
    threads: list[Thread] = field(default_factory=list)
    errors: list[CdcError] = field(default_factory=list)

    def spawn(self, name: str, work: Callable[[], None]) -> None:
        """Run ``work`` in a thread; an error that it raises ends the attempt."""

        def guarded() -> None:
            try:
                work()
            except CdcError as error:
                self.errors.append(error)
            except Exception as error:
                # The thread's boundary: a bug must stop the source, not pass unseen.
                log.exception("thread %s ended by a bug", name)
                self.errors.append(DataError(f"thread {name}: {type(error).__name__}; see the log"))
            finally:
                self.stop.set()

        thread = Thread(target=guarded, name=name, daemon=True)
        self.threads.append(thread)
        thread.start()


class SourceRunner:
    """Keeps one source flowing until the engine stops. ``run`` is its thread; the rest may be called from any."""

    def __init__(
        self,
        source: Source,
        config: SourceConfig,
        sink: Sink,
        *,
        metrics: ApplyMetrics,
        journal: Journal,
        stop: Event,
    ) -> None:
        self._source = source
        self._config = config
        self._sink = sink
        self._metrics = metrics
        self._journal = journal
        self._stop = stop
        self._tables = TableBook()
        self._run: _Run | None = None
        self._state = SourceState.STARTING
        self._error: CdcError | None = None
        self._budget = RpoBudget(config.rpo)
        self._drain = DrainRate()
        self._head: SourceHead | None = None
        self._since = time.time()
        self._committed_at: float | None = None
        self._position: str | None = None
        self._transactions = 0
        self._refused: dict[TableId, str] = {}
        self._unasked: dict[TableId, None] = {}  # found, but not published yet
        self.ticked_at = time.monotonic()

    @property
    def state(self) -> SourceState:
        """Return what the source is doing."""
        return self._state

    def run(self) -> None:
        """Stream until the engine stops; after an error, start again as the retry policy says."""
        attempt = 0
        while not self._stop.is_set():
            applied_before = self._transactions
            try:
                self._attempt()
            except CdcError as error:
                attempt = 1 if self._transactions > applied_before else attempt + 1
                self._report(error)
                self._pause(delay_seconds(error, attempt))
            except Exception as error:
                log.exception("source %s: ended by a bug", self._source.name)
                attempt += 1
                bug = DataError(f"source {self._source.name}: {type(error).__name__}; see the log")
                self._report(bug)
                self._pause(delay_seconds(bug, attempt))
        self._state = SourceState.STOPPED

    def status(self) -> SourceStatus:
        """Return a snapshot for /metrics, /api/status and the demo."""
        run, now, health = self._run, time.time(), self._source.health()
        lag = lag_seconds(now, health, run.handover.oldest_commit if run else None, self._since)
        trouble = (run.applier.trouble if run else None) or self._error
        state = SourceState.RETRYING if run and run.applier.trouble else self._state
        transactions, committed_at, position = self._applied(run)
        head = self._head
        return SourceStatus(
            name=self._source.name,
            type=self._config.type,
            state=state,
            error=str(trouble or ""),
            hint=trouble.hint if isinstance(trouble, OperatorError) else "",
            position=position,
            committed_at=committed_at,
            lag_seconds=lag,
            rpo_seconds=self._config.rpo,
            rto_seconds=self._config.rto,
            rpo_breach_seconds_total=self._budget.breach_seconds_total,
            budget_remaining_ratio=self._budget.remaining_ratio(),
            recovery_estimate_seconds=self._drain.recovery_seconds(lag),
            retained_bytes=head.retained_bytes if head else None,
            retain_bytes=self._config.retain,
            buffered_bytes=health.buffered_bytes + (run.handover.size_bytes if run else 0),
            spilled_bytes=health.spilled_bytes,
            transactions_total=transactions,
            tables=self._tables.status(),
        )

    def _applied(self, run: _Run | None) -> tuple[int, float | None, str | None]:
        """Return transactions, last commit time and position, over all attempts."""
        if run is None:
            return self._transactions, self._committed_at, self._position
        applier = run.applier
        return (
            self._transactions + applier.transactions,
            applier.committed_at or self._committed_at,
            applier.position or self._position,
        )

    def _attempt(self) -> None:
        """Prepare the source, then stream until the engine stops or something raises."""
        lane = self._sink.lane(self._source.name)
        try:
            start = self._prepare(lane)
            self._stream(lane, start)
        finally:
            lane.close()
            self._source.close()

    def _prepare(self, lane: Lane) -> Position:
        """Bring source, lake and table book to where streaming can begin; return its position."""
        self._sink.install()
        progress = lane.progress()
        start = self._source.prepare(progress.position)
        lane.begin(start)
        schemas = self._source.tables()
        targets = self._place(schemas)
        again = self._tables.load(schemas, targets, progress.tables, self._source.watermark)
        streaming = self._tables.memberships()
        broken = self._source.broken(streaming) if progress.position else dict.fromkeys(streaming, "it starts again")
        for table, reason in [*again, *broken.items()]:
            log.warning("source %s: table %s is copied again: %s", self._source.name, table, reason)
        for table in broken:
            self._tables.postpone(table)
        self._source.publish(targets.keys())
        first = self._source.establish(start, needed=bool(self._tables.names(TableState.STREAMING)))
        if start < first:
            lane.apply(LakeGroup(group=marker(self._source.name, first), targets={}))
        self._position, self._committed_at = first.display(), progress.committed_at
        return first

    def _place(self, schemas: Mapping[TableId, TableSchema]) -> dict[TableId, TableId]:
        """Return the tables that have a place in the lake; log those that can't have one, once."""
        targets, refused = lake_names(self._config.lake_schema or self._source.name, schemas)
        for table in refused.keys() - self._refused.keys():
            log.error("source %s: %s", self._source.name, refused[table])
        self._refused = refused
        return targets

    def _stream(self, lane: Lane, start: Position) -> None:
        """Run the threads and watch over them."""
        stop = Event()
        handover = Handover(self._source.wake)
        applier = Applier(self._source, lane, handover, self._tables, metrics=self._metrics, journal=self._journal)
        run = _Run(applier, handover, Copier(self._source, lane, self._tables, journal=self._journal, stop=stop), stop)
        run.spawn(f"{self._source.name}-stream", lambda: self._source.run(start, handover, stop))
        run.spawn(f"{self._source.name}-apply", lambda: applier.run(stop))
        run.copier.start()
        self._unasked.clear()
        run.copier.ask(self._tables.names(TableState.PENDING))
        log.info("source %s: streaming from %s", self._source.name, start.display())
        self._journal.note("start", self._source.name, position=start.display())
        self._run = run
        try:
            self._watch(run)
        finally:
            self._end(run)
        if run.errors:
            raise run.errors[0]

    def _end(self, run: _Run) -> None:
        """Stop the threads and keep what they have counted."""
        run.stop.set()
        self._source.wake()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in run.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        run.copier.join(max(0.0, deadline - time.monotonic()))
        self._transactions, self._committed_at, self._position = self._applied(run)
        self._run = None

    def _watch(self, run: _Run) -> None:
        """Tick until the engine or a thread stops: look at the source's head, look for new tables, keep the budget."""
        next_head = next_look = 0.0
        while not (self._stop.is_set() or run.stop.is_set()):
            now = time.monotonic()
            try:
                if now >= next_head:
                    next_head = now + HEAD_SECONDS
                    self._note_retention(self._source.head())
                if now >= next_look:
                    next_look = now + self._config.discover
                    self._discover(run)
            except RetryableError as error:
                log.warning("source %s: %s", self._source.name, error)
            self._tick()
            run.stop.wait(TICK_SECONDS if self._state is SourceState.STREAMING else FIRST_TICK_SECONDS)

    def _note_retention(self, head: SourceHead) -> None:
        """Keep the reading; say so when the source begins to keep more log for us than it should."""
        before, self._head = self._head, head
        self._drain.observe(time.monotonic(), head)
        bound = self._config.retain
        if bound is not None and head.retained_bytes > bound and not (before and before.retained_bytes > bound):
            found = f"{head.retained_bytes} bytes of log, {bound} is the bound"
            log.error("source %s: it keeps %s; see what stands in the way", self._source.name, found)
            self._journal.note("retention", self._source.name, retained_bytes=head.retained_bytes, bound=bound)

    def _discover(self, run: _Run) -> None:
        """Take in new tables, and stop those that the stream no longer carries unbroken."""
        schemas = self._source.tables()
        targets = self._place(schemas)
        known = set(self._tables.names())
        new = [table for table in targets if table not in known]
        for table in new:
            log.info("source %s: found table %s", self._source.name, table)
            self._tables.add(schemas[table], targets[table])
        for table, changes in self._tables.changed(schemas).items():
            message = f"table {table}: its columns changed at the source ({changes}); a restart copies it again"
            run.copier.refuse(table, SchemaChangedError(message, table=str(table)))
        for table, reason in self._source.broken(self._tables.memberships()).items():
            log.warning("source %s: table %s is copied again: %s", self._source.name, table, reason)
            self._tables.postpone(table)
            new.append(table)
        self._unasked |= dict.fromkeys(new)
        if self._unasked:
            self._source.publish(targets.keys())
            run.copier.ask(list(self._unasked))
            self._unasked.clear()

    def _tick(self) -> None:
        self.ticked_at = time.monotonic()
        run, health = self._run, self._source.health()
        self._since = max(self._since, health.caught_up_at)
        if run is not None and (health.caught_up_at or health.oldest_pending_commit or run.handover.oldest_commit):
            self._state, self._error = SourceState.STREAMING, None
        self._budget.observe(time.time(), self.status().lag_seconds)

    def _report(self, error: CdcError) -> None:
        hint = f"; {error.hint}" if isinstance(error, OperatorError) else ""
        if str(error) != str(self._error):
            log.error("source %s: %s%s", self._source.name, error, hint)
            if not isinstance(error, RetryableError):
                self._journal.note("failed", self._source.name, error=str(error))
        self._error, self._state = error, state_after(error)

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._stop.wait(min(TICK_SECONDS, max(0.0, deadline - time.monotonic()))):
            self._tick()
            if time.monotonic() >= deadline:
                return
