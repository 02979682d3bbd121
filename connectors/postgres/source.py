"""The PostgreSQL source: everything that talks to the server, behind ``cdc.contracts.Source``."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from threading import Event, Lock

import psycopg
from psycopg import sql

from cdc.contracts import (
    Finding,
    Outlet,
    Severity,
    SourceHead,
    SourceHealth,
    Step,
    TableCopy,
    Watermark,
)
from cdc.errors import (
    CdcError,
    IdentityMismatchError,
    OperatorError,
    PublicationError,
    SlotInUseError,
    SlotLostError,
    SourceUnavailableError,
)
from cdc.position import Position
from cdc.schema import TableId, TableSchema
from cdc.selection import unmatched
from connectors.postgres import messages as wire
from connectors.postgres.assembler import Assembler
from connectors.postgres.catalog import CatalogTable, read_tables
from connectors.postgres.config import PostgresSourceConfig
from connectors.postgres.lsn import format_lsn, parse_lsn
from connectors.postgres.pieces import Layout
from connectors.postgres.position import PostgresPosition
from connectors.postgres.preflight import check_server, judge_tables
from connectors.postgres.publication import PublicationNames, read_publications, steps
from connectors.postgres.replication import ReplicationConnection, guard_identity
from connectors.postgres.session import KeptSession, session, translated
from connectors.postgres.stream import PostgresStream
from connectors.postgres.watermark import SnapshotWatermark

COPY_CHUNK_BYTES = 256 << 10
"""Rows of a copy are handed on in pieces of this size: libpq gives one row at a time, and each hand-over costs."""

SLOT_WAIT_SECONDS = 10.0
"""How long a slot may stay in use before that is an error: the server takes a moment to notice that its last reader was
killed."""

WRITERS_WAIT_SECONDS = 30.0
"""How long a copy waits for transactions that may have written to its table before it was published."""

_WRITERS = """
SELECT DISTINCT l.virtualtransaction FROM pg_catalog.pg_locks l
 WHERE l.locktype = 'relation' AND l.granted
   AND l.relation IN (SELECT %(table)s::regclass UNION ALL SELECT relid FROM pg_partition_tree(%(table)s::regclass))
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
   AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
"""

_SLOT = "SELECT wal_status, active, confirmed_flush_lsn::text FROM pg_catalog.pg_replication_slots WHERE slot_name = %s"

_HEAD = """
SELECT pg_current_wal_flush_lsn()::text, COALESCE(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::bigint,
       COALESCE(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), s.confirmed_flush_lsn), 0)::bigint
  FROM (SELECT) AS one LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = %s
"""


class PostgresSource:
    """One PostgreSQL database, read by logical decoding.

    It creates two publications and one slot, and nothing else; ``publish`` and ``establish`` are the only writers.
    """

    def __init__(self, name: str, config: PostgresSourceConfig) -> None:
        self._name = name
        self._patterns = config.tables
        self._dsn = config.url.get_secret_value()
        self._application_name = f"cdc:{name}"
        self._slot = config.slot or f"cdc_{name}"
        publication = config.publication or f"cdc_{name}"
        self._publications = PublicationNames(publication, f"{publication}_inserts")
        self._two_phase = config.two_phase
        self._lock = Lock()
        self._catalog: Mapping[int, CatalogTable] = {}
        self._stream: PostgresStream | None = None
        self._control = KeptSession(self._dsn, application_name=self._application_name)

    @property
    def name(self) -> str:
        """Return the source's name in the configuration."""
        return self._name

    def check(self) -> Sequence[Finding]:
        """Look at server, privileges, slot and tables; change nothing."""
        try:
            with self._session() as connection:
                findings = check_server(connection, self._slot, self._application_name)
                tables = read_tables(connection, self._patterns)
                role = str(connection.info.user)
        except CdcError as error:
            fix = error.hint if isinstance(error, OperatorError) else "check host, port and network"
            return [Finding(subject="connection", severity=Severity.ERROR, message=str(error), fix=fix)]
        findings += judge_tables(tables.values(), role)
        for pattern in unmatched(self._patterns, list(tables)):
            message = "matches no table that can be replicated"
            fix = "check its spelling; views, temporary and unlogged tables have no changes in the log"
            findings.append(Finding(subject=f"pattern {pattern}", severity=Severity.WARNING, message=message, fix=fix))
        return findings

    def tables(self) -> Mapping[TableId, TableSchema]:
        """Return the tables that the configuration selects, as the catalog has them now."""
        with self._control.use() as connection:
            found = read_tables(connection, self._patterns)
        with self._lock:
            self._catalog = {**self._catalog, **self._unknown(found.values())}
        return {name: table.schema for name, table in found.items()}

    def plan(self) -> Sequence[Step]:
        """Return what ``publish`` and ``establish`` would do for the selected tables."""
        with self._session() as connection:
            tables = read_tables(connection, self._patterns)
            planned = self._publication_steps(connection, tables)
            if self._slot_row(connection) is None:
                summary = f"create replication slot {self._slot}"
                planned.append(Step(where="source", summary=summary, sql=self._create_slot(connection)))
        return planned

    def prepare(self, resume: str | None) -> Position:
        """Guard identity, slot and publications.

        Raises:
            IdentityMismatchError: the server doesn't hold the history up to ``resume``.
            SlotInUseError: the lake doesn't know this source, but slot or publication exist: somebody else's.
        """
        with self._lock:
            self._catalog = {}
        with closing(self._replication()) as connection:
            identity = connection.identify()
            here = PostgresPosition(identity.system_identifier, identity.timeline, identity.lsn)
            if resume:
                stored = PostgresPosition.parse(resume)
                branch = None
                if identity.system_identifier == stored.system_identifier and identity.timeline != stored.timeline:
                    branch = connection.branch_lsn(identity.timeline, stored.timeline)
                guard_identity(identity, stored.system_identifier, stored.timeline, stored.lsn, branch)
                return PostgresPosition(identity.system_identifier, identity.timeline, stored.lsn)
        with self._session() as connection:
            if resume is None:
                self._refuse_strangers(connection)
            elif self._slot_row(connection) is not None:
                connection.execute("SELECT pg_drop_replication_slot(%s)", (self._slot,))
        return here

    def publish(self, tables: Collection[TableId]) -> None:
        """Make the publications hold exactly these tables."""
        with self._session() as connection:
            catalog = {n: t for n, t in read_tables(connection, self._patterns).items() if n in tables}
            with self._lock:
                self._catalog = {**self._catalog, **self._unknown(catalog.values())}
            for step in self._publication_steps(connection, catalog):
                connection.execute(sql.SQL(step.sql))

    def establish(self, start: Position, *, needed: bool) -> Position:
        """Create the slot if it is missing.

        Raises:
            SlotLostError: it is missing, invalidated or ahead of ``start``, and every change since is needed.
            SourceUnavailableError: an open transaction keeps it from being made; try again.
        """
        if not isinstance(start, PostgresPosition):
            raise TypeError(f"start: expected a PostgresPosition, got {type(start).__name__}")
        with self._session() as connection:
            row = self._slot_row(connection)
            if row is None or row[0] == "lost":
                if needed:
                    raise self._slot_lost(
                        "the log since the lake's position", "one whose log is gone" if row else "none"
                    )
                row = self._make_slot(connection, replacing=row is not None)
            confirmed = parse_lsn(row[2])
        if confirmed <= start.lsn:
            return start
        if needed:
            expected = f"one that was confirmed up to {start.display()} or less"
            got = f"{format_lsn(confirmed)}: the lake was put back to an earlier state, or somebody else read the slot"
            raise self._slot_lost(expected, got)
        return replace(start, lsn=confirmed)

    def _make_slot(self, connection: psycopg.Connection, *, replacing: bool) -> tuple[str, bool, str]:
        if replacing:
            connection.execute("SELECT pg_drop_replication_slot(%s)", (self._slot,))
        try:
            connection.execute(sql.SQL(self._create_slot(connection)))
        except psycopg.errors.QueryCanceled as error:
            message = f"slot {self._slot}: it waits for transactions that were open before; see cdc check"
            raise SourceUnavailableError(message) from error
        row = self._slot_row(connection)
        if row is None:
            raise SourceUnavailableError(f"slot {self._slot}: expected the one just made, got none")
        return row

    def _slot_lost(self, expected: str, got: str) -> SlotLostError:
        hint = f"cdc tables resync {self._name} --all: copies the tables again, keeping the lake's columns"
        return SlotLostError(f"slot {self._slot}: expected {expected}, got {got}", hint=hint)

    def broken(self, streaming: Mapping[TableId, str]) -> Mapping[TableId, str]:
        """Return the tables that were taken out of our publications, or put back by somebody else.

        Raises:
            PublicationError: a publication is gone: from then on, nothing was sent.
        """
        with self._control.use() as connection:
            for publication in read_publications(connection, self._publications):
                if not publication.exists and streaming:
                    raise PublicationError(
                        f"publication {publication.name}: expected ours, got none",
                        hint=f"cdc tables resync {self._name} --all: publishes and copies the tables again",
                    )
            members = self._members(connection)
        reasons = {}
        for table, membership in streaming.items():
            if table not in members:
                reasons[table] = "it was taken out of the publication, or dropped; its changes since then are missing"
            elif members[table] != membership:
                reasons[table] = "it was taken out of the publication and put back; changes in between are missing"
        return reasons

    def run(self, start: Position, outlet: Outlet, stop: Event) -> None:
        """Stream groups after ``start`` into ``outlet`` until ``stop`` is set."""
        if not isinstance(start, PostgresPosition):
            raise TypeError(f"start: expected a PostgresPosition, got {type(start).__name__}")
        with closing(self._replication()) as connection:
            identity = connection.identify()
            if identity.system_identifier != start.system_identifier:
                raise IdentityMismatchError("source: the server was exchanged", hint="run cdc check")
            self._start(connection, start, stop)
            assembler = Assembler(self._name, start, self._layout)
            with closing(assembler):
                self._stream = PostgresStream(connection, assembler, outlet, start)
                try:
                    self._stream.run(stop)
                finally:
                    self._stream = None

    def wake(self) -> None:
        """Make ``run`` look around now."""
        stream = self._stream
        if stream is not None:
            stream.wake()

    def acknowledge(self, position: Position) -> None:
        """Tell the server that everything up to ``position`` is durable."""
        stream = self._stream
        if stream is not None:
            stream.acknowledge(position)

    def health(self) -> SourceHealth:
        """Return what the stream knows of itself."""
        stream = self._stream
        return SourceHealth() if stream is None else stream.health()

    def head(self) -> SourceHead:
        """Ask the server for the end of its log and what our slot keeps."""
        asked_at = time.time()
        with self._control.use() as connection:
            row = connection.execute(_HEAD, (self._slot,)).fetchone()
        if row is None:
            raise SourceUnavailableError("source: the server didn't say how far it is")
        lsn = parse_lsn(row[0])
        stream = self._stream
        if stream is not None:
            stream.note_head(asked_at, lsn)
        return SourceHead(log_bytes=lsn, lag_bytes=row[2], retained_bytes=row[1])

    @contextmanager
    def copy(self, schema: TableSchema) -> Iterator[TableCopy]:
        """Open a copy of one table under a snapshot of its own."""
        with session(self._dsn, application_name=self._application_name, statement_timeout_ms=0) as connection:
            membership = self._members(connection).get(schema.table, "")
            self._await_writers(connection, schema.table)
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            snapshot = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
            end = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
            if snapshot is None or end is None:
                raise SourceUnavailableError("source: no snapshot was given")
            with self._lock:
                partitioned = any(t.partitioned for t in self._catalog.values() if t.schema.table == schema.table)
            columns = sql.SQL(", ").join(map(sql.Identifier, schema.names))
            query = sql.SQL("COPY (SELECT {} FROM {} {}) TO STDOUT").format(
                columns, sql.SQL("" if partitioned else "ONLY"), sql.Identifier(*schema.table)
            )
            watermark = SnapshotWatermark.of(snapshot[0], parse_lsn(end[0]))
            with connection.cursor().copy(query) as rows:
                yield TableCopy(schema, watermark, _chunks(rows), membership)

    def watermark(self, token: str) -> Watermark:
        """Read a stored watermark."""
        return SnapshotWatermark.parse(token)

    def close(self) -> None:
        """Close the connection that is kept for ``tables``, ``broken`` and ``head``."""
        self._control.close()

    def _session(self) -> AbstractContextManager[psycopg.Connection]:
        return session(self._dsn, application_name=self._application_name)

    def _replication(self) -> ReplicationConnection:
        return ReplicationConnection(self._dsn, application_name=self._application_name)

    def _slot_row(self, connection: psycopg.Connection) -> tuple[str, bool, str] | None:
        return connection.execute(_SLOT, (self._slot,)).fetchone()

    def _create_slot(self, connection: psycopg.Connection) -> str:
        """Return the statement; a failover slot where the server has them, so that a promoted standby can go on."""
        version = connection.info.server_version
        arguments = [sql.Literal(self._slot), sql.Literal("pgoutput"), sql.Literal(False)]
        if version >= 140000:
            arguments.append(sql.Literal(self._two_phase))
        if version >= 170000:
            arguments.append(sql.Literal(True))
        statement = sql.SQL("SELECT pg_create_logical_replication_slot({})").format(sql.SQL(", ").join(arguments))
        return statement.as_string()

    def _publication_steps(self, connection: psycopg.Connection, tables: Mapping[TableId, CatalogTable]) -> list[Step]:
        current = read_publications(connection, self._publications)
        return steps(self._publications, current, tables.values(), connection.info.server_version)

    def _members(self, connection: psycopg.Connection) -> dict[TableId, str]:
        """Return each published table's membership: the oid of its row in pg_publication_rel, made anew each time."""
        changes, inserts = read_publications(connection, self._publications)
        return {table: str(oid) for table, oid in {**changes.members, **inserts.members}.items()}

    def _refuse_strangers(self, connection: psycopg.Connection) -> None:
        """Refuse slot and publications that exist although the lake doesn't know this source."""
        existing = [f"publication {p.name}" for p in read_publications(connection, self._publications) if p.exists]
        if self._slot_row(connection) is not None:
            existing.append(f"slot {self._slot}")
        if existing:
            raise SlotInUseError(
                f"source: expected no {existing[-1].split()[0]} of ours yet, got {' and '.join(existing)}",
                hint="another lake may depend on them: set other names with the source's keys slot and publication, "
                "or drop them if nothing does",
            )

    def _await_writers(self, connection: psycopg.Connection, table: TableId) -> None:
        """Wait for the transactions that have written to a table or a partition of it and are still open.

        A change that was made before its table was published is not in the stream, even if its transaction commits
        afterwards; so a copy has to see it.

        Raises:
            SourceUnavailableError: one of them is still open; try again.
        """
        name = sql.Identifier(*table).as_string()
        writers = {row[0] for row in connection.execute(_WRITERS, {"table": name})}
        deadline = time.monotonic() + WRITERS_WAIT_SECONDS
        while writers:
            if time.monotonic() > deadline:
                found = f"{len(writers)} that may have written to it before it was published"
                raise SourceUnavailableError(f"table {table}: expected no open transaction, got {found}")
            connection.execute("SELECT pg_sleep(0.05)")
            writers &= {row[0] for row in connection.execute(_WRITERS, {"table": name})}

    def _start(self, connection: ReplicationConnection, start: PostgresPosition, stop: Event) -> None:
        """Begin streaming; wait a moment for a slot whose last reader was killed."""
        version = connection.server_version
        options = {
            "proto_version": "4" if version >= 160000 else "2" if version >= 140000 else "1",
            "publication_names": ", ".join(
                sql.Identifier(name).as_string() for name in (self._publications.changes, self._publications.inserts)
            ),
        }
        if version >= 140000:
            options["streaming"] = "parallel" if version >= 160000 else "on"
        if self._two_phase and version >= 150000:
            options |= {"two_phase": "on", "proto_version": max(options["proto_version"], "3")}
        # A two-phase slot sends a transaction when it is prepared, which may lie before our position.
        lsn = 0 if self._two_phase else start.lsn
        deadline = time.monotonic() + SLOT_WAIT_SECONDS
        while True:
            try:
                connection.start(self._slot, lsn, options)
            except SlotInUseError:
                if time.monotonic() > deadline or stop.wait(0.1):
                    raise
            else:
                return

    def _unknown(self, tables: Iterable[CatalogTable]) -> dict[int, CatalogTable]:
        """Return the tables that aren't in our catalog yet, at least not under this name.

        What is in it stays as it was read when the table's copy was prepared: rows of another shape must be noticed,
        and they would not be if the catalog had been read again just before they came.
        """
        known = {oid: table.schema.table for oid, table in self._catalog.items()}
        return {table.oid: table for table in tables if known.get(table.oid) != table.schema.table}

    def _layout(self, relation: wire.Relation) -> Layout | None:
        """Return how this relation's rows are to be read; None if the configuration doesn't select it."""
        with self._lock:
            table = self._catalog.get(relation.oid)
        if table is None:
            return None
        sent = tuple((c.name, c.type_oid, c.type_modifier) for c in relation.columns)
        named = TableId(relation.namespace, relation.name)
        mismatch = ""
        if named != table.schema.table:
            mismatch = f"table {table.schema.table}: it was renamed to {named} at the source"
        elif sent != table.wire:
            mismatch = _difference(table, sent)
        return Layout(tuple(name for name, _, _ in sent), table.schema, mismatch)


def _difference(table: CatalogTable, sent: tuple[tuple[str, int, int], ...]) -> str:
    known, now = {c[0]: c for c in table.wire}, {c[0]: c for c in sent}
    added = sorted(now.keys() - known.keys())
    dropped = sorted(known.keys() - now.keys())
    changed = sorted(name for name in known.keys() & now.keys() if known[name] != now[name])
    words = [
        f"{verb} {', '.join(names)}"
        for verb, names in (("added", added), ("dropped", dropped), ("changed", changed))
        if names
    ]
    return f"table {table.schema.table}: its columns changed at the source ({'; '.join(words) or 'order'})"


def _chunks(rows: psycopg.Copy) -> Iterator[bytes]:
    """Yield a copy's rows, joined to pieces of about ``COPY_CHUNK_BYTES``."""
    buffer: list[bytes | bytearray | memoryview] = []
    size = 0
    with translated():
        for row in rows:
            buffer.append(row)
            size += len(row)
            if size >= COPY_CHUNK_BYTES:
                yield b"".join(buffer)
                buffer, size = [], 0
    if buffer:
        yield b"".join(buffer)
