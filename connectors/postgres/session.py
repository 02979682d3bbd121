"""Connections to the source, all with the settings that make its text output canonical.

It owns how a connection is opened and how libpq's errors become ours; it knows nothing of replication.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.errors import (
    CdcError,
    ConfigError,
    OperatorError,
    PrivilegeError,
    ServerSettingError,
    SourceUnavailableError,
)

CANONICAL = {
    "datestyle": "ISO, YMD",
    "timezone": "UTC",
    "intervalstyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmloption": "content",
    "search_path": "pg_catalog",
    "row_security": "off",
}
"""Settings on which the text output depends (``extra_float_digits`` 3 gives the shortest exact form since version 12),
and one that makes a copy fail where row-level security would silently leave rows out."""

CONNECT_TIMEOUT_SECONDS = 10


def conninfo(dsn: str, *, application_name: str, **parameters: str) -> str:
    """Return ``dsn`` with canonical settings and keepalives.

    Raises:
        ConfigError: libpq can't read the DSN.
    """
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        hint = "write postgresql://user:password@host:port/database, or key=value pairs"
        raise ConfigError("url: expected a PostgreSQL connection string", hint=hint) from error
    settings = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in CANONICAL.items())
    merged: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
        "gssencmode": "disable",
    }
    merged |= given
    merged |= {
        "application_name": application_name,
        "client_encoding": "UTF8",
        "options": f"{given.get('options') or ''} {settings}".strip(),
    }
    return make_conninfo("", **(merged | parameters))


@contextmanager
def session(dsn: str, *, application_name: str, statement_timeout_ms: int = 30_000) -> Iterator[psycopg.Connection]:
    """Open a connection in autocommit mode, and close it.

    Raises:
        SourceUnavailableError: the server can't be reached or hung up.
        OperatorError: it refuses us.
    """
    info = conninfo(dsn, application_name=application_name)
    with translated(), psycopg.connect(info, autocommit=True) as connection:
        connection.execute(f"SET statement_timeout = {statement_timeout_ms:d}")
        yield connection


class KeptSession:
    """A connection that is opened when it is first used, kept for the next time, and given up after an error.

    For what is asked every second: a connection each would cost the server a process each. Thread-safe.
    """

    def __init__(self, dsn: str, *, application_name: str) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._lock = Lock()
        self._opened: ExitStack | None = None
        self._connection: psycopg.Connection | None = None

    @contextmanager
    def use(self) -> Iterator[psycopg.Connection]:
        """Yield the connection, in autocommit mode. Raises what ``session`` does."""
        with self._lock:
            try:
                if self._connection is None or self._connection.closed:
                    self._close()
                    self._opened = ExitStack()
                    opening = session(self._dsn, application_name=self._application_name)
                    self._connection = self._opened.enter_context(opening)
                with translated():
                    yield self._connection
            except CdcError:
                self._close()
                raise

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        opened, self._opened, self._connection = self._opened, None, None
        if opened is not None:
            opened.close()


@contextmanager
def translated() -> Iterator[None]:
    """Turn psycopg's errors into ours."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from error


def translate(error: psycopg.Error) -> CdcError:
    """Return our error for one of psycopg's.

    The server's primary message names objects and settings, never values; details are left out.
    """
    if error.sqlstate is None and isinstance(error, psycopg.OperationalError):
        return refusal(str(error))
    text = first_line(error.diag.message_primary or str(error)) or type(error).__name__
    if isinstance(error, pg.InsufficientPrivilege):
        return PrivilegeError(f"source: {text}", hint="run cdc check: it names each missing privilege and its GRANT")
    if isinstance(error, (pg.InvalidPassword, pg.InvalidAuthorizationSpecification)):
        return OperatorError("source: the server refuses the login", hint="check user and password in the source's url")
    if isinstance(error, pg.InvalidCatalogName):
        return OperatorError(f"source: {text}", hint="check the database's name in the source's url")
    if isinstance(error, pg.ObjectNotInPrerequisiteState) and "wal_level" in text:
        hint = "ALTER SYSTEM SET wal_level = logical, then restart the server"
        return ServerSettingError(f"source: {text}", hint=hint)
    if isinstance(error, pg.ConfigurationLimitExceeded):
        hint = "drop a slot that nobody needs, or raise max_replication_slots (ALTER SYSTEM) and restart the server"
        return ServerSettingError(f"source: {text}", hint=hint)
    if error.sqlstate is None or isinstance(error, (psycopg.OperationalError, psycopg.InternalError)):
        return SourceUnavailableError(f"source: {reason(text)}")
    return OperatorError(f"source: {text}", hint="run cdc check against this source")


def refusal(message: str) -> CdcError:
    """Return the error for a connection that wasn't made, or is lost, by libpq's message.

    Before the login there is no SQLSTATE to go by.
    """
    text = reason(message)
    if text.startswith(("role ", "database ")) and text.endswith("does not exist"):
        return OperatorError(f"source: {text}", hint="check user and database in the source's url")
    if text.startswith("permission denied to start WAL sender") or "replication role" in text:
        hint = "ALTER ROLE <the source url's user> WITH REPLICATION"
        return PrivilegeError(f"source: {text}", hint=hint)
    if "pg_hba.conf" in text:
        hint = "add a line for this user, database and address to pg_hba.conf and reload the server"
        return PrivilegeError("source: pg_hba.conf refuses the connection", hint=hint)
    if "wal senders" in text or "max_wal_senders" in text:
        hint = "ALTER SYSTEM SET max_wal_senders = 10, then restart the server"
        return ServerSettingError(f"source: {text}", hint=hint)
    if "password" in text or "authentication" in text:
        return OperatorError("source: the server refuses the login", hint="check user and password in the source's url")
    return SourceUnavailableError(f"source: {text}")


def reason(message: str) -> str:
    """Return why the last address that libpq tried didn't do, without the address: it may be part of a secret DSN."""
    beside = ("\t", "DETAIL:", "HINT:", "- host:", "Multiple connection attempts failed")
    lines = [line for line in message.splitlines() if line.strip() and not line.startswith(beside)]
    if not lines:
        return "no reason given"
    if "translate host name" in lines[-1] or "resolve host" in lines[-1]:
        return "the host's name can't be resolved"
    return lines[-1].rpartition("failed: ")[2].strip().removeprefix("FATAL:").strip()


def first_line(text: str) -> str:
    """Return a message without the lines that explain it; empty if there is none."""
    return next(iter(text.strip().splitlines()), "")
