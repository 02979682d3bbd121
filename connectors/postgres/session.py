"""Connections to the source, all with the settings that make its text output canonical.

It owns how a connection is opened and how libpq's errors become ours; it knows nothing of replication.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.errors import CdcError, ConfigError, OperatorError, PrivilegeError, SourceUnavailableError

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
    text = (error.diag.message_primary or str(error)).strip().splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, pg.InsufficientPrivilege):
        return PrivilegeError(f"source: {text}", hint="run cdc check: it names each missing privilege and its GRANT")
    if isinstance(error, (pg.InvalidPassword, pg.InvalidAuthorizationSpecification)) or "password" in text:
        return OperatorError("source: the server refuses the login", hint="check user and password in the source's url")
    if isinstance(error, pg.InvalidCatalogName):
        return OperatorError(f"source: {text}", hint="check the database's name in the source's url")
    if error.sqlstate is None or isinstance(error, (psycopg.OperationalError, psycopg.InternalError)):
        return SourceUnavailableError(f"source: {unaddressed(text)}")
    return OperatorError(f"source: {text}", hint="run cdc check against this source")


def unaddressed(text: str) -> str:
    """Return libpq's message without the address it was trying, which may be part of a secret DSN."""
    return text.rpartition("failed: ")[2] if "failed: " in text else text
