"""Makes lake tables what their sources' schemas say: works out the steps, and carries them out."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import psycopg

from cdc.contracts import Step, TableState
from cdc.errors import ApplyRefusedError
from cdc.schema import TableId, TableSchema
from cdc.state import INSTALL_LOCK
from schema_registry.fingerprint import schema_id
from sinks.postgres import progress
from sinks.postgres.catalog import column_types, expected_types, read_table
from sinks.postgres.ddl import steps
from sinks.postgres.errors import RETRYABLE, describe, translate

DDL_LOCK = INSTALL_LOCK + 1
"""Key of the advisory lock under which tables are created and altered, across all engines of a lake."""

DDL_LOCK_TIMEOUT_SECONDS = 5
"""ALTER TABLE waits for a user's running query, and all later queries wait for it: so not for long."""


def planned(connection: psycopg.Connection, source: str | None, schema: TableSchema, target: TableId) -> Sequence[Step]:
    """Return what ``prepare`` would do; change nothing.

    Args:
        connection: in a transaction or not.
        source: whose table it is; None if that isn't known, and isn't checked then.
        schema: what is wanted.
        target: where.

    Raises:
        ApplyRefusedError: the table can't be made in the lake.
    """
    found = read_table(connection, target)
    types = column_types(connection, schema, target)
    try:
        expected = expected_types(connection, types)
    except psycopg.errors.DataError as error:
        message = f"table {schema.table}: expected types that the lake can have, got {describe(error)}"
        raise ApplyRefusedError(message, table=str(schema.table)) from None
    return steps(source, schema, target, types=types, expected=expected, found=found)


def prepare(connection: psycopg.Connection, source: str, schema: TableSchema, target: TableId) -> None:
    """Carry out what is planned, and store the table as PENDING, in the connection's transaction.

    Raises:
        ApplyRefusedError: the table can't be made in the lake.
        psycopg.Error: anything that isn't about this table.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (DDL_LOCK,))
    connection.execute(f"SET LOCAL lock_timeout = '{DDL_LOCK_TIMEOUT_SECONDS}s'")
    try:
        for step in planned(connection, source, schema, target):
            connection.execute(step.sql.encode())
    except psycopg.Error as error:
        if error.sqlstate is None or error.sqlstate.startswith(RETRYABLE):
            raise
        raise translate(error, table=str(schema.table)) from None
    parameters = progress.stored(source, schema.table, target, TableState.PENDING, schema=described(schema))
    connection.execute(progress.STORE, parameters)


def described(schema: TableSchema) -> dict[str, str]:
    """Return the parameters that store a schema."""
    return {"new_schema": orjson.dumps(schema.to_json()).decode(), "new_schema_id": schema_id(schema)}
