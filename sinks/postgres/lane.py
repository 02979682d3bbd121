"""The lane: one source's connection to the lake, and the transactions on it.

Every group is one transaction that begins by moving the source's position from where this lane knows it to be. That
row's lock keeps a second engine out from the first statement on, and a position that another has moved touches no row.
A group whose commit was cut off may be there or not; when it is offered again, the position tells.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, RLock

import psycopg

from cdc.change import ChangeBatch
from cdc.contracts import LakeGroup, Progress, TableCopy, TableState
from cdc.errors import ApplyRefusedError, FencedError
from cdc.position import Position
from cdc.schema import TableId, TableSchema
from sinks.postgres import progress
from sinks.postgres.errors import describe, is_lost, translate
from sinks.postgres.initial_copy import copy_table
from sinks.postgres.quick import MAX_ROWS, QuickSql, Statement
from sinks.postgres.session import connect, session
from sinks.postgres.tables import prepare
from sinks.postgres.writer import KeyExists, TableWriter

MAX_STAGES = 32
"""At every commit that used one the server empties all of a session's stage tables, which takes 0.2 ms each."""


class PostgresLane:
    """Writes one source's groups; implements ``cdc.contracts.Lane``.

    ``prepare``, ``copy`` and ``fail`` use connections of their own and may be called beside ``apply``.

    Args:
        dsn: of the lake.
        ddl_lock: shared by all lanes of this process, so that those waiting for DDL don't hold connections.
    """

    def __init__(self, dsn: str, source: str, ddl_lock: Lock) -> None:
        self._dsn = dsn
        self._source = source
        self._ddl_lock = ddl_lock
        self._lock = RLock()
        self._connection: psycopg.Connection | None = None
        self._writers: dict[TableId, TableWriter] = {}
        # Writers with stages, the most recently used last.
        self._stages: OrderedDict[TableWriter, None] = OrderedDict()
        self._quick: dict[TableId, QuickSql] = {}
        self._stage_count = 0
        self._position: str | None = None
        self._position_is_read = False
        # Token of the group whose commit was cut off, so that nobody knows yet whether it is durable.
        self._attempted: str | None = None

    def progress(self) -> Progress:
        """Return what is stored about this source; the next group is expected to start there."""
        with self._lock, self._transaction() as connection:
            self._read_position(connection)
            return progress.read_progress(connection).get(self._source, Progress())

    def begin(self, position: Position) -> None:
        """Store where this source's stream starts, unless something is stored."""
        token = position.token()
        with self._lock, self._transaction() as connection:
            knew = self._position if self._position_is_read else token
            connection.execute(progress.BEGIN, {"of": self._source, "next": token})
            self._read_position(connection)
            if not knew and self._position != token:
                raise self._fenced()

    def prepare(self, schema: TableSchema, target: TableId) -> None:
        """Create the table in the lake, or add the columns it lacks, and store it as PENDING."""
        with self._ddl_lock, self._own_session() as connection:
            prepare(connection, self._source, schema, target)

    def copy(self, copy: TableCopy, target: TableId) -> int:
        """Make the lake's table hold exactly the copy's rows, and store it as STREAMING."""
        with self._own_session() as connection:
            return copy_table(connection, self._source, copy, target)

    def fail(self, table: TableId, target: TableId, reason: str) -> None:
        """Store that the table has failed."""
        with self._own_session() as connection:
            stored = progress.stored(self._source, table, target, TableState.FAILED, reason=reason)
            connection.execute(progress.FAIL, stored)

    def close(self) -> None:
        """Close the connection; what wasn't committed is rolled back."""
        with self._lock:
            self._disconnect()

    def apply(self, group: LakeGroup) -> None:
        """Write the group and its position in one transaction; durable on return."""
        with self._lock:
            if not self._position_is_read:
                with self._transaction() as connection:
                    self._read_position(connection)
            if not self._apply_small(group):
                self._apply_large(group)
            self._position = group.group.position.token()
            self._attempted = None

    def _apply_small(self, group: LakeGroup) -> bool:
        """Try to write the group in one round trip; return whether it is durable. Nothing is written otherwise."""
        if group.group.row_count > MAX_ROWS or group.passed or group.failed:
            return False
        connection = self._connected()
        try:
            statements = self._quick_statements(connection, group)
            if statements is None:
                return False
            with connection.pipeline():
                cursor = connection.cursor()
                cursor.execute(progress.MOVE_OR_FAIL, progress.movement(group.group, self._position), prepare=True)
                for statement, parameters in statements:
                    cursor.execute(statement, parameters or None, prepare=True)
                connection.commit()
        except psycopg.Error as error:
            self._roll_back()
            if is_lost(error) or connection.closed:
                self._attempted = group.group.position.token()
                raise translate(error) from None
            return False
        except BaseException:
            self._roll_back()
            raise
        return True

    def _quick_statements(self, connection: psycopg.Connection, group: LakeGroup) -> list[Statement] | None:
        made: list[Statement] = []
        for batch in group.batches():
            table = batch.schema.table
            quick = self._quick.get(table)
            writer = self._writer(connection, batch.schema, group.targets[table])
            if quick is None or quick.sql is not writer.sql:
                quick = self._quick[table] = QuickSql(writer.sql, batch.schema.identity)
            statements = quick.statements(batch)
            if statements is None:
                return None
            made += statements
        return made

    def _apply_large(self, group: LakeGroup) -> None:
        """Write the group in sets. Tables found to have keys that were to be copied straight in are upserted then."""
        upserting: set[TableId] = set()
        while True:
            try:
                with self._transaction() as connection:
                    self._write(connection, group, upserting)
                    self._commit(connection, group)
            except KeyExists as found:
                upserting.add(found.table)
            except _AlreadyThere:
                return
            else:
                return

    def _write(self, connection: psycopg.Connection, group: LakeGroup, upserting: set[TableId]) -> None:
        moved = connection.execute(progress.MOVE, progress.movement(group.group, self._position), prepare=True)
        if moved.rowcount != 1:
            self._check_attempt(connection, group)
        for batch in group.batches():
            self._write_batch(connection, batch, group.targets[batch.schema.table], upserting)
        for table in group.passed:
            mark = {"mark": group.watermarks[table].token()}
            connection.execute(progress.PASS, progress.named(self._source, table) | mark)
        for table, reason in group.failed.items():
            connection.execute(progress.STOP, progress.named(self._source, table) | {"why": reason})

    def _write_batch(
        self, connection: psycopg.Connection, batch: ChangeBatch, target: TableId, upserting: set[TableId]
    ) -> None:
        table = batch.schema.table
        try:
            writer = self._writer(connection, batch.schema, target)
            writer.write(batch, upserting=table in upserting)
            if writer.has_stage:
                self._stages[writer] = None
                self._stages.move_to_end(writer)
        except psycopg.Error as error:
            raise translate(error, table=str(table)) from None

    def _commit(self, connection: psycopg.Connection, group: LakeGroup) -> None:
        """Commit; constraints that users deferred to here are refusals of the table that they are about."""
        try:
            connection.commit()
        except psycopg.errors.IntegrityError as error:
            lake_table = TableId(error.diag.schema_name or "", error.diag.table_name or "")
            written = [table for table in group.targets if table in group.group.tables]
            blamed = [table for table in written if group.targets[table] == lake_table] or written
            if len(blamed) == 1:
                raise translate(error, table=str(blamed[0])) from None
            message = f"lake refuses a group at its end: {describe(error)}"
            raise ApplyRefusedError(message, table=None) from None
        except psycopg.Error:
            if connection.closed:
                self._attempted = group.group.position.token()
            raise

    def _check_attempt(self, connection: psycopg.Connection, group: LakeGroup) -> None:
        """Find out why the position isn't where it was: whether by our own commit whose answer was lost.

        Raises:
            _AlreadyThere: it was; the group is durable.
            FencedError: somebody else moved it.
        """
        self._read_position(connection)
        token = group.group.position.token()
        if self._position == token == self._attempted:
            raise _AlreadyThere
        raise self._fenced()

    def _fenced(self) -> FencedError:
        return FencedError(
            f"source {self._source}: expected the lake's position where this engine left it, got another",
            hint="make sure that only one engine runs for this source and lake, then start it again",
        )

    def _read_position(self, connection: psycopg.Connection) -> None:
        query = progress.READ if self._attempted is None else progress.READ_SETTLED
        row = connection.execute(query, {"of": self._source}).fetchone()
        self._position = row[0] if row else None
        self._position_is_read = True

    def _writer(self, connection: psycopg.Connection, schema: TableSchema, target: TableId) -> TableWriter:
        writer = self._writers.get(schema.table)
        if writer is not None and (writer.schema is schema or writer.schema == schema) and writer.target == target:
            return writer
        if writer is not None and writer in self._stages:
            self._stages.move_to_end(writer, last=False)
        self._stage_count += 1
        writer = self._writers[schema.table] = TableWriter(connection, schema, target, f"cdc_stage_{self._stage_count}")
        return writer

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection]:
        """Run a transaction on the lane's connection: committed at the end, rolled back by any error."""
        connection = self._connected()
        try:
            yield connection
            connection.commit()
        except psycopg.Error as error:
            self._roll_back()
            raise translate(error) from None
        except BaseException:
            self._roll_back()
            raise
        for writer in self._stages:
            writer.committed()
        if len(self._stages) > MAX_STAGES:
            self._drop_stages(connection)

    def _drop_stages(self, connection: psycopg.Connection) -> None:
        """Drop the stages that were used longest ago, in a transaction of their own."""
        try:
            while len(self._stages) > MAX_STAGES:
                self._stages.popitem(last=False)[0].drop_stage()
            connection.commit()
        except psycopg.Error:
            # What was written is durable already; with the connection all stages go.
            self._disconnect()

    def _connected(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._disconnect()
            self._connection = connect(self._dsn, application_name=application_name(self._source))
        return self._connection

    def _roll_back(self) -> None:
        """Undo what wasn't committed; a connection that can't even do that is given up."""
        if self._connection is None:
            return
        try:
            self._connection.rollback()
        except psycopg.Error:
            self._disconnect()
            return
        for writer in {*self._writers.values(), *self._stages}:
            writer.rolled_back()
        self._stages = OrderedDict((writer, None) for writer in self._stages if writer.has_stage)

    def _disconnect(self) -> None:
        self._writers.clear()
        self._stages.clear()
        self._quick.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _own_session(self) -> Iterator[psycopg.Connection]:
        with session(self._dsn, application_name=application_name(self._source)) as connection:
            yield connection


class _AlreadyThere(Exception):  # noqa: N818 - not an error: the group needn't be written
    """The group is durable already."""


def application_name(source: str) -> str:
    """Return how connections for a source show up in pg_stat_activity."""
    return f"cdc:{source}"
