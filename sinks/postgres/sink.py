"""The sink: a lake in a PostgreSQL database. Connections are opened for each call and by lanes, none is kept here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock

import psycopg
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from cdc import state
from cdc.contracts import Finding, Progress, Severity, Step
from cdc.errors import OperatorError, RetryableError
from cdc.schema import TableId, TableSchema
from sinks.postgres import progress
from sinks.postgres.errors import translate
from sinks.postgres.lane import PostgresLane, application_name
from sinks.postgres.preflight import findings
from sinks.postgres.session import connect, session
from sinks.postgres.tables import planned

_OWN = "lake"
"""Our part of the application name where no one source is concerned."""

_INSTALL = Step(
    where="lake",
    summary=f"schema {state.SCHEMA} with the engine's own tables",
    sql=f"CREATE SCHEMA {state.SCHEMA}; " + "; ".join(state.definitions(state.progress_tables, state.record_tables)),
)


class PostgresSink:
    """Implements ``cdc.contracts.Sink``; connects to nothing until it is asked something.

    Args:
        dsn: libpq's URL or key=value form.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._ddl_lock = Lock()

    def check(self) -> Sequence[Finding]:
        """Look at the server and our privileges; change nothing."""
        try:
            with self._session() as connection:
                return [Finding(subject="lake", severity=Severity.OK, message="reachable"), *findings(connection)]
        except RetryableError as error:
            fix = "start the lake's server, or correct lake.url"
            return [Finding(subject="lake", severity=Severity.ERROR, message=str(error), fix=fix)]
        except OperatorError as error:
            return [Finding(subject="lake", severity=Severity.ERROR, message=str(error), fix=error.hint)]

    def plan(self, tables: Mapping[TableId, tuple[TableSchema, TableId]]) -> Sequence[Step]:
        """Return what ``install`` and ``prepare`` would do for these tables; what two of them need is named once."""
        with self._session() as connection:
            row = connection.execute("SELECT to_regclass('cdc.positions') IS NULL").fetchone()
            own = [_INSTALL] if row and row[0] else []
            found = [step for schema, target in tables.values() for step in planned(connection, None, schema, target)]
        return list({step.sql: step for step in [*own, *found]}.values())

    def install(self) -> None:
        """Create the engine's own tables where they are missing."""
        with _raw_errors(), self.state_engine().begin() as connection:
            state.create(connection, state.progress_tables)

    def state_engine(self) -> Engine:
        """Return a way into the lake that keeps no connection."""
        return create_engine(
            "postgresql+psycopg://",
            creator=lambda: connect(self._dsn, application_name=application_name(_OWN)),
            poolclass=NullPool,
        )

    def lane(self, source: str) -> PostgresLane:
        """Return the writer for one source; it connects when it is first used."""
        return PostgresLane(self._dsn, source, self._ddl_lock)

    def forget(self, source: str, tables: Sequence[TableId] | None) -> None:
        """Make tables PENDING again, or with None all of the source's, and its position empty."""
        with self._session() as connection:
            if tables is None:
                connection.execute(progress.FORGET_TABLES, {"of": source})
                connection.execute(progress.FORGET_POSITION, {"of": source})
            for table in tables or ():
                connection.execute(progress.FORGET_TABLE, progress.named(source, table))

    def progress(self) -> Mapping[str, Progress]:
        """Return what is stored about every source; nothing before ``install``."""
        with self._session() as connection:
            return progress.read_progress(connection)

    @contextmanager
    def _session(self) -> Iterator[psycopg.Connection]:
        with session(self._dsn, application_name=application_name(_OWN)) as connection:
            yield connection


@contextmanager
def _raw_errors() -> Iterator[None]:
    """Turn SQLAlchemy's errors into ours by the psycopg error inside."""
    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error):
            raise translate(error.orig) from None
        raise
