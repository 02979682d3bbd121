"""What a connector and a sink promise each other; the engine relies on nothing else.

**Delivery.** A source hands over every transaction after the position it is started from, at least once; a sink makes
it exactly once in effect, because it stores a group's position in the transaction that writes the group's rows, and a
source is always started from what the sink has stored.

**Ordering.** Groups of one source are offered in commit order by one thread, and applied in that order by one thread.

**Durable** means: it survives the power failing at that moment. Only a durable position is acknowledged, and only an
acknowledged one lets the source discard its log.

**Errors** are those of ``cdc.errors``. A ``RetryableError`` leaves both sides as they were; a ``DataError`` concerns
one table; an ``OperatorError`` ends the source's run until a person has acted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Event
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cdc.change import ChangeBatch, Index1D, Mask1D
from cdc.errors import SchemaChangedError
from cdc.group import CommitGroup, Transactions
from cdc.position import Position
from cdc.schema import TableId, TableSchema

if TYPE_CHECKING:
    from sqlalchemy import Engine


class Severity(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that ``cdc check`` looked at.

    Attributes:
        subject: what was looked at, as in ``wal_level`` or ``table public.orders``.
        message: what was found, and for anything but OK why it matters.
        fix: the statement or command that mends it; empty for OK.
    """

    subject: str
    severity: Severity
    message: str
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that would be created or altered: a line of ``cdc plan``.

    Attributes:
        where: ``source`` or ``lake``.
        summary: in words.
        sql: the statement that does it.
    """

    where: str
    summary: str
    sql: str


class Watermark(Protocol):
    """Which transactions an initial copy already holds: exactly those that its snapshot saw."""

    def covers(self, transactions: Transactions) -> Mask1D:
        """Return for each transaction whether the copy holds its changes."""
        ...

    def passed(self, position: Position) -> bool:
        """Return whether no transaction after ``position`` can be covered any more."""
        ...

    def token(self) -> str:
        """Return the stored form, one line of text; ``Source.watermark`` reads it back."""
        ...


@dataclass(frozen=True, slots=True)
class TableCopy:
    """A table's rows as of one snapshot.

    Attributes:
        watermark: which transactions the rows hold.
        membership: token of the table's place in the stream, read before the rows: it is another one if the table has
            left the stream since and come back.
        chunks: pieces of Postgres' COPY text format (version 15, "COPY", "Text Format"), cut at row ends, columns in
            the order of ``schema``, values in canonical text. Single use; reading it reads from the source.
    """

    schema: TableSchema
    watermark: Watermark
    chunks: Iterator[bytes]
    membership: str = ""


class Outlet(Protocol):
    """Where a source puts its groups. Offered to by the source's thread only."""

    def wanted(self) -> bool:
        """Return whether the consumer is idle, so that even a small group should be offered now."""
        ...

    def offer(self, group: CommitGroup, timeout_seconds: float) -> bool:
        """Hand over ``group``, waiting for room at most this long.

        Returns:
            whether it was taken. Taken, it belongs to the consumer, its ``release`` too.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHealth:
    """What a running source knows of itself; read from other threads, never blocks.

    Attributes:
        connected: whether the stream is open.
        caught_up_at: when (UNIX seconds, our clock) the source last confirmed that nothing was left to send; 0 never.
        oldest_pending_commit: commit time (UNIX seconds, our clock) of the oldest transaction received and not yet
            offered; None without one.
        buffered_bytes: received and not yet offered, in memory.
        spilled_bytes: received and not yet offered, on disk.
        clock_skew_seconds: our clock minus the source's.
    """

    connected: bool = False
    caught_up_at: float = 0.0
    oldest_pending_commit: float | None = None
    buffered_bytes: int = 0
    spilled_bytes: int = 0
    clock_skew_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHead:
    """How far the source itself is; asked from the server on a connection of its own.

    Attributes:
        position: the end of the source's log.
        log_bytes: the head as a number of bytes that only grows.
        lag_bytes: log between what we have acknowledged and the head.
        retained_bytes: log that the source keeps for us.
    """

    log_bytes: int
    lag_bytes: int
    retained_bytes: int


class Source(Protocol):
    """One source database.

    ``check``, ``plan``, ``tables``, ``head`` and ``copy`` each use connections of their own and may be called from any
    thread at any time; ``run`` is called by one thread; ``acknowledge`` and ``health`` may be called from any.
    """

    @property
    def name(self) -> str:
        """Return the source's name in the configuration."""
        ...

    def check(self) -> Sequence[Finding]:
        """Look at every setting, privilege and table that matters; change nothing."""
        ...

    def tables(self) -> Mapping[TableId, TableSchema]:
        """Return the tables that the configuration selects, as the source's catalog has them now."""
        ...

    def plan(self) -> Sequence[Step]:
        """Return what ``publish`` and ``establish`` would create or alter for the selected tables; change nothing."""
        ...

    def prepare(self, resume: str | None) -> Position:
        """Guard that this is the server, and the history, that the lake knows.

        Args:
            resume: the token that the sink has stored; empty if it was forgotten on purpose; None for a source that the
                sink doesn't know.

        Returns:
            where to start: the position of ``resume``, or the end of the log. To be stored before ``publish`` and
            ``establish`` create anything, so that what exists at the source is known to be ours.

        Raises:
            OperatorError: the source can't be streamed, or not from ``resume``; nothing was skipped.
        """
        ...

    def publish(self, tables: Collection[TableId]) -> None:
        """Make changes to exactly these tables part of the stream."""
        ...

    def establish(self, start: Position, *, needed: bool) -> Position:
        """Create what keeps the log for us, if it is missing.

        Args:
            start: what ``prepare`` returned.
            needed: copies in the lake depend on every change since ``start``.

        Returns:
            where the log for us begins: ``start``, or later where nothing is needed. To be stored before it is
            streamed from.

        Raises:
            OperatorError: it is missing, unusable, or begins after ``start``, and all is needed.
        """
        ...

    def broken(self, streaming: Mapping[TableId, str]) -> Mapping[TableId, str]:
        """Return which of these tables the stream hasn't carried unbroken, and why.

        Args:
            streaming: the membership of each table's copy.

        Raises:
            OperatorError: it carries none of them.
        """
        ...

    def run(self, start: Position, outlet: Outlet, stop: Event) -> None:
        """Stream groups after ``start`` into ``outlet`` until ``stop`` is set or an error is raised.

        Keeps the connection alive by itself, however long the outlet has no room. On return or error, whatever wasn't
        offered is forgotten: it will be sent again.
        """
        ...

    def wake(self) -> None:
        """Make ``run`` look at its outlet and at ``stop`` now."""
        ...

    def acknowledge(self, position: Position) -> None:
        """Tell the source that everything up to ``position`` is durable; wakes ``run``. Positions only grow."""
        ...

    def health(self) -> SourceHealth:
        """Return what the running source knows of itself."""
        ...

    def head(self) -> SourceHead:
        """Ask the server how far it is."""
        ...

    def copy(self, schema: TableSchema) -> AbstractContextManager[TableCopy]:
        """Open a copy of one published table, without locks that block writers.

        It holds every change that is not in the stream. The transaction at the source lasts as long as the context.

        Raises:
            RetryableError: a transaction that wrote to the table before it was published is still open.
        """
        ...

    def watermark(self, token: str) -> Watermark:
        """Read what ``Watermark.token`` wrote."""
        ...

    def close(self) -> None:
        """Close the connections that are kept between calls; any later call opens them again."""
        ...


class TableState(StrEnum):
    """Where a table is on its way; the sink stores PENDING, STREAMING and FAILED."""

    PENDING = "pending"
    """Selected, not copied yet."""
    COPYING = "copying"
    """Its initial copy runs. A crash makes it pending again."""
    STREAMING = "streaming"
    """Its copy is in the lake and follows the source."""
    FAILED = "failed"
    """Stopped with a reason; its changes are left out until it is copied again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableProgress:
    """What the sink has stored about one table.

    Attributes:
        target: its name in the lake.
        watermark: token of its copy's watermark; None when the stream is past it, or nothing was copied.
        membership: of its copy; see ``TableCopy``.
        reason: why it failed; empty otherwise.
        schema: the schema that the lake's copy was made for; None before that.
    """

    target: TableId
    state: TableState
    watermark: str | None = None
    membership: str = ""
    reason: str = ""
    schema: TableSchema | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the sink has stored about one source.

    Attributes:
        position: token of the last applied group's position; empty if it was forgotten on purpose; None for a source
            it doesn't know.
        committed_at: commit time (UNIX seconds, the source's clock) of the last applied transaction, if any.
    """

    position: str | None = None
    committed_at: float | None = None
    tables: Mapping[TableId, TableProgress] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeGroup:
    """A group as the topology hands it to a sink: with every table's place in the lake.

    Attributes:
        targets: lake table by source table; tables that aren't in it are left out.
        watermarks: tables whose copy may already hold some of the group's transactions.
        passed: tables whose watermark the stream has passed with this group; their token is to be cleared.
        failed: tables to mark as failed with this group, by reason.
        tally: rows of the last reading of ``batches``, by table and ``Op``.
    """

    group: CommitGroup
    targets: Mapping[TableId, TableId]
    watermarks: Mapping[TableId, Watermark] = field(default_factory=dict)
    passed: Sequence[TableId] = ()
    failed: Mapping[TableId, str] = field(default_factory=dict)
    tally: dict[TableId, Index1D] = field(default_factory=dict)

    def batches(self) -> Iterator[ChangeBatch]:
        """Yield the batches to write, without what the copies already hold; may be called again.

        Raises:
            DataError: a table's rows can't be read, or don't fit the schema that its copy was made for.
        """
        self.tally.clear()
        for batch in self._fresh():
            counts = np.bincount(batch.ops, minlength=128)
            self.tally[batch.schema.table] = self.tally.get(batch.schema.table, 0) + counts
            yield batch

    def _fresh(self) -> Iterator[ChangeBatch]:
        covered = {table: mark.covers(self.group.transactions) for table, mark in self.watermarks.items()}
        for batch in self.group.read(self.targets):
            mask = covered.get(batch.schema.table)
            fresh = batch if mask is None or not mask.any() else batch.filter(~mask[batch.transactions])
            if len(fresh) and fresh.mismatch:
                raise SchemaChangedError(fresh.mismatch, table=str(fresh.schema.table))
            if len(fresh) or fresh is batch:
                yield fresh


class Lane(Protocol):
    """A sink's writer for one source: its own connection, used by one thread at a time, except ``copy``.

    ``copy`` uses a connection of its own and may run in several threads, for different tables, beside ``apply``.
    """

    def progress(self) -> Progress:
        """Return what is stored about this source."""
        ...

    def begin(self, position: Position) -> None:
        """Store where this source's stream starts; does nothing if a position is stored that isn't empty."""
        ...

    def prepare(self, schema: TableSchema, target: TableId) -> None:
        """Create the table in the lake, or add the columns it lacks, and store it as PENDING.

        Raises:
            ApplyRefusedError: the lake has a table of this name that isn't ours, or whose columns don't fit.
        """
        ...

    def copy(self, copy: TableCopy, target: TableId) -> int:
        """Make the lake's table hold exactly the copy's rows, and store it as STREAMING with the copy's watermark.

        Atomic: until it returns, readers see the table as it was. Rows are merged by key, so that columns which the
        lake's users own survive.

        Returns:
            number of rows copied.
        """
        ...

    def apply(self, group: LakeGroup) -> None:
        """Write the group and its position in one transaction; durable on return.

        Raises:
            RetryableError: nothing was written; the same group may be applied again.
            DataError: nothing was written; ``table`` says whose rows are refused, and the group may be applied again
                without them.
            FencedError: nothing was written; another engine has moved the position.
        """
        ...

    def fail(self, table: TableId, target: TableId, reason: str) -> None:
        """Store that the table has failed."""
        ...

    def close(self) -> None:
        """Free the connections; what wasn't committed is rolled back."""
        ...


class Sink(Protocol):
    """A lake."""

    def check(self) -> Sequence[Finding]:
        """Look at every setting and privilege that matters; change nothing."""
        ...

    def plan(self, tables: Mapping[TableId, tuple[TableSchema, TableId]]) -> Sequence[Step]:
        """Return what ``Lane.prepare`` would create or alter for these (schema, target) pairs; change nothing."""
        ...

    def install(self) -> None:
        """Create the engine's own tables where they are missing. Safe to call from several processes at once."""
        ...

    def state_engine(self) -> Engine:
        """Return a way into the lake for the records that are kept beside the copies."""
        ...

    def lane(self, source: str) -> Lane:
        """Open the writer for one source."""
        ...

    def forget(self, source: str, tables: Sequence[TableId] | None) -> None:
        """Make these tables PENDING again; or with None all of the source's, and its position empty.

        Copies stay as they are until they have been copied again.
        """
        ...

    def progress(self) -> Mapping[str, Progress]:
        """Return what is stored about every source."""
        ...
