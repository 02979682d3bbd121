"""What each error of the lake means for the engine: the one table of SQLSTATEs.

Messages name the SQLSTATE, its condition, and constraint and column where the server says them; never its DETAIL, and
of the classes that quote values not its message either.

Spec: PostgreSQL 18, Appendix A, "PostgreSQL Error Codes", https://www.postgresql.org/docs/18/errcodes-appendix.html
"""

from __future__ import annotations

import re

import psycopg

from cdc.errors import (
    ApplyRefusedError,
    CdcError,
    ConfigError,
    OperatorError,
    PrivilegeError,
    ServerSettingError,
    SinkUnavailableError,
)

RETRYABLE = (
    "08",  # connection exceptions
    "25006",  # read-only transaction: a standby, or about to be promoted
    "40",  # rolled back: serialization failure, deadlock
    "53",  # insufficient resources: disk full, out of memory, too many connections
    "55006",  # object in use
    "55P03",  # lock not available in time
    "57",  # operator intervention: shutdown, crash, cancel, can't connect now
    "58",  # system error outside of the server: I/O
)
"""Classes (two characters) and codes that may pass by themselves."""

TALKATIVE = ("22", "23", "38", "39", "44", "P0")
"""Classes whose messages quote values, or are written by users' functions."""

MISSING = ("3D000",)
REFUSED_LOGIN = ("28",)
PRIVILEGE = "42501"

_LOGIN_HINT = "correct user and password in lake.url, or pg_hba.conf at the lake"
_DATABASE_HINT = "create the database, or correct its name in lake.url"

REFUSED_CONNECTIONS: tuple[tuple[str, type[OperatorError], str], ...] = (
    ("password", PrivilegeError, _LOGIN_HINT),
    ("authentication", PrivilegeError, _LOGIN_HINT),
    ("pg_hba.conf", PrivilegeError, _LOGIN_HINT),
    ("role ", PrivilegeError, _LOGIN_HINT),
    ("permission denied", PrivilegeError, "GRANT CONNECT on the lake's database to its role"),
    ("database ", ConfigError, _DATABASE_HINT),
)
"""What a server says instead of a SQLSTATE, which libpq doesn't hand on while it connects.

In a server's other languages such an error looks like an unreachable lake.
"""

_COPY_COLUMN = re.compile(r"^COPY .*, line \d+, column ([^:\n]+)", re.MULTILINE)


def translate(error: psycopg.Error, *, table: str | None = None) -> CdcError:
    """Return our error for psycopg's.

    Args:
        error: from a statement, or from connecting.
        table: the source table whose rows were being written, if it was about one.

    Callers raise the result ``from None``: the cause prints its DETAIL, which may hold values.
    """
    state = error.sqlstate
    if is_lost(error) or (state and state.startswith(RETRYABLE)):
        return SinkUnavailableError(f"lake: {describe(error)}")
    if state is None:
        hint = "look at the message; if it doesn't help, this is a fault in cdc"
        return OperatorError(f"lake: {describe(error)}", hint=hint)
    if table is not None:
        return ApplyRefusedError(f"lake refuses {table}: {describe(error)}", table=table)
    return _operator_error(state, f"lake: {describe(error)}")


def translate_connecting(error: psycopg.Error) -> CdcError:
    """Return our error for what psycopg raised while it connected."""
    _, fatal, reason = str(error).partition("FATAL: ")
    for words, kind, hint in REFUSED_CONNECTIONS if fatal and error.sqlstate is None else ():
        if words in reason and not reason.strip().startswith("the database system"):
            return kind(f"lake: {' '.join(reason.split())}", hint=hint)
    return translate(error)


def is_lost(error: psycopg.Error) -> bool:
    """Return whether the connection is gone, or was never made."""
    return error.sqlstate is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


def describe(error: psycopg.Error) -> str:
    """Return the error in one line without any value."""
    if error.sqlstate is None:
        # libpq's own words about a connection: hosts and reasons, never values.
        return " ".join(str(error).split()) or type(error).__name__
    parts = [f"SQLSTATE {error.sqlstate} {type(error).__name__}"]
    diagnostic = error.diag
    if diagnostic.constraint_name:
        parts.append(f"constraint {diagnostic.constraint_name}")
    column = diagnostic.column_name or _copied_column(diagnostic.context)
    if column:
        parts.append(f"column {column}")
    if not error.sqlstate.startswith(TALKATIVE) and diagnostic.message_primary:
        parts.append(diagnostic.message_primary)
    return ", ".join(parts)


def _operator_error(state: str, message: str) -> OperatorError:
    if state == PRIVILEGE:
        return PrivilegeError(message, hint="grant the privilege to the lake's role; cdc check names it")
    if state.startswith(REFUSED_LOGIN):
        return PrivilegeError(message, hint=_LOGIN_HINT)
    if state in MISSING:
        return ConfigError(message, hint=_DATABASE_HINT)
    return ServerSettingError(message, hint="run cdc check, which looks at the lake's settings")


def _copied_column(context: str | None) -> str | None:
    match = _COPY_COLUMN.search(context or "")
    return match.group(1) if match else None
