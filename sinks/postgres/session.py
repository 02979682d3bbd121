"""Opens connections to the lake, all with the same settings, whatever the role's and the database's own are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.errors import ConfigError
from sinks.postgres.errors import translate, translate_connecting

CONNECT_TIMEOUT_SECONDS = 10
LOCK_TIMEOUT_SECONDS = 30
"""How long a write waits for a row that a user's transaction holds, before it says so and is tried again."""
IDLE_TIMEOUT_SECONDS = 300
"""After this long without a word from us in mid-transaction the server frees our locks."""
PREPARED_STATEMENTS = 1000
"""Kept per connection: some for every table that gets small groups."""

_KEEPALIVE: dict[str, int] = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}

_SETTINGS = f"""
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET DateStyle = 'ISO, YMD';
SET TimeZone = 'UTC';
SET IntervalStyle = 'postgres';
SET extra_float_digits = 3;
SET bytea_output = 'hex';
SET lc_monetary = 'C';
SET xmloption = 'content';
SET search_path = 'pg_catalog';
SET statement_timeout = 0;
SET lock_timeout = '{LOCK_TIMEOUT_SECONDS}s';
SET idle_in_transaction_session_timeout = '{IDLE_TIMEOUT_SECONDS}s';
SET default_transaction_isolation = 'read committed';
SET jit = off;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""
"""Text forms as ``cdc.schema`` says; commits durable on return; no plan worth compiling.

SET rather than the connection's ``options``, since poolers refuse those.
"""


def connect(dsn: str, *, application_name: str) -> psycopg.Connection:
    """Open a connection, not in autocommit mode.

    Raises:
        SinkUnavailableError: the lake can't be reached.
        OperatorError: the lake refuses us, or the DSN isn't one.
    """
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        hint = "write postgresql://user:password@host:port/database"
        raise ConfigError("lake.url: expected a PostgreSQL URL or DSN", hint=hint, path="lake.url") from None
    conninfo = make_conninfo("", **{**_KEEPALIVE, **given, "application_name": application_name})
    try:
        connection = psycopg.connect(conninfo, autocommit=True)
    except psycopg.Error as error:
        raise translate_connecting(error) from None
    try:
        connection.execute(_SETTINGS)
        connection.autocommit = False
    except psycopg.Error as error:
        raise translate(error) from None
    connection.prepared_max = PREPARED_STATEMENTS
    return connection


@contextmanager
def session(dsn: str, *, application_name: str) -> Iterator[psycopg.Connection]:
    """Open a connection of its own for one piece of work: one transaction, committed unless an error leaves it.

    Raises:
        CdcError: translated from what the lake said.
    """
    connection = connect(dsn, application_name=application_name)
    try:
        with connection:
            yield connection
    except psycopg.Error as error:
        raise translate(error) from None
