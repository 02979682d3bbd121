"""Makes a lake table hold exactly the rows of an initial copy, in one transaction on a connection of its own."""

from __future__ import annotations

from typing import Any

import psycopg

from cdc.contracts import TableCopy, TableState
from cdc.schema import RowIdentity, TableId, TableSchema
from sinks.postgres import progress
from sinks.postgres.catalog import foreign_equals
from sinks.postgres.errors import translate
from sinks.postgres.sql import TableSql, listed
from sinks.postgres.tables import described

_STAGE = "cdc_copy"


def copy_table(connection: psycopg.Connection, source: str, copy: TableCopy, target: TableId) -> int:
    """Write the copy, and store the table as STREAMING with the copy's watermark; the caller commits.

    An empty table takes the rows as they come. A table with rows takes only the differences by key, so that what the
    lake's users own survives; without a key all rows are replaced.

    Returns:
        number of rows copied.

    Raises:
        ApplyRefusedError: the lake refuses the rows.
        CdcError: from the source, while its rows are read.
    """
    schema = copy.schema
    key = schema.key if schema.identity is RowIdentity.KEY else ()
    cursor = connection.cursor()
    try:
        equals = foreign_equals(connection, target, key) if key else {}
        sql = TableSql(target=target, columns=schema.names, key=key, stage=f"pg_temp.{_STAGE}", equals=equals)
        is_empty = _scalar(cursor, f"SELECT NOT EXISTS (SELECT FROM {sql.table})")
        if is_empty or not key:
            if not is_empty:
                cursor.execute(sql.delete_all().encode())
            row_count = _copy_text(cursor, sql.table, copy)
        else:
            row_count = _merge(cursor, sql, schema, copy)
        cursor.execute(f"ANALYZE {sql.table}".encode())
        stored = progress.stored(
            source,
            schema.table,
            target,
            TableState.STREAMING,
            watermark=copy.watermark.token(),
            membership=copy.membership,
            schema=described(schema),
        )
        cursor.execute(progress.STORE, stored)
    except psycopg.Error as error:
        raise translate(error, table=str(schema.table)) from None
    return row_count


def _copy_text(cursor: psycopg.Cursor[Any], into: str, copy: TableCopy) -> int:
    statement = f"COPY {into} ({listed(copy.schema.names)}) FROM STDIN (FORMAT text)"
    with cursor.copy(statement.encode()) as out:
        for chunk in copy.chunks:
            out.write(chunk)
    return cursor.rowcount


def _merge(cursor: psycopg.Cursor[Any], sql: TableSql, schema: TableSchema, copy: TableCopy) -> int:
    """Delete the rows whose key the copy lacks, insert those that the lake lacks, update those that differ."""
    names = listed(schema.names)
    cursor.execute(
        f"CREATE TEMPORARY TABLE {_STAGE} ON COMMIT DROP AS SELECT {names} FROM {sql.table} WITH NO DATA".encode()
    )
    row_count = _copy_text(cursor, sql.stage, copy)
    cursor.execute(f"CREATE INDEX ON {sql.stage} ({listed(sql.key)})".encode())
    cursor.execute(f"ANALYZE {sql.stage}".encode())
    cursor.execute(sql.delete_others().encode())
    cursor.execute(sql.upsert_different(list(schema.names)).encode())
    return row_count


def _scalar(cursor: psycopg.Cursor[Any], query: str) -> Any:
    row = cursor.execute(query.encode()).fetchone()
    return row[0] if row else None
