"""Writes one table's batches through a lane's connection, in sets.

Rows that are only inserted go straight into the table by COPY. All else goes by COPY into the session's stage table,
which has the lake's column types, and from there by one statement per kind of write. Only the source's columns are ever
written. A truncate is a DELETE: TRUNCATE isn't MVCC-safe, so that a reader whose snapshot is older would find the table
empty while it still sees the rest of the transaction undone, and it would wait for readers and make them wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psycopg
import pyarrow as pa

from cdc.change import ChangeBatch, Op, Presence
from cdc.errors import ApplyRefusedError
from cdc.schema import RowIdentity, TableId, TableSchema
from sinks.postgres.bag import compact_bag
from sinks.postgres.catalog import foreign_equals, writable_columns
from sinks.postgres.compaction import Columns, Rows, compact, encode, normalize
from sinks.postgres.encoding import to_csv
from sinks.postgres.sql import LIFTED, TableSql, old_name

TRUNCATE_ROWS = 30_000
"""Up to so many rows a stage is emptied by DELETE: TRUNCATE leaves dead rows in pg_class while any user queries."""


class KeyExists(Exception):  # noqa: N818 - not an error: it asks for another way of writing
    """Rows were copied straight into a table that has one of their keys."""

    def __init__(self, table: TableId) -> None:
        super().__init__(str(table))
        self.table = table


class TableWriter:
    """Writes one table under one schema version, inside of the lane's transactions.

    Args:
        connection: the lane's; the writer neither commits nor rolls back, and is told what the lane did.
        stage: name of the session's stage table, this writer's alone.
    """

    def __init__(self, connection: psycopg.Connection, schema: TableSchema, target: TableId, stage: str) -> None:
        self.schema = schema
        self.target = target
        self._cursor = connection.cursor()
        self._key = schema.key if schema.identity is RowIdentity.KEY else ()
        equals = foreign_equals(connection, target, self._key) if self._key else {}
        self.sql = TableSql(target=target, columns=schema.names, key=self._key, stage=f"pg_temp.{stage}", equals=equals)
        self.has_stage = False
        self._stage_is_new = False
        self._staged_row_count = 0

    def committed(self) -> None:
        """Take note that the transaction was committed: the stage stays, and is empty."""
        self._stage_is_new = False
        self._staged_row_count = 0

    def rolled_back(self) -> None:
        """Take note that the transaction was rolled back: a stage made in it is gone."""
        self.has_stage = self.has_stage and not self._stage_is_new
        self.committed()

    def drop_stage(self) -> None:
        """Drop the stage, in a transaction that is known to be committed."""
        self._run(f"DROP TABLE {self.sql.stage}")
        self.has_stage = False

    def write(self, batch: ChangeBatch, *, upserting: bool) -> None:
        """Write one batch.

        Args:
            batch: of this writer's schema.
            upserting: whether inserts may meet rows with their keys.

        Raises:
            KeyExists: they did, and ``upserting`` is false; the transaction is spoilt.
            ApplyRefusedError: the lake lacks rows, or the batch doesn't fit the table's identity.
            psycopg.Error: from the lake.
        """
        if not len(batch):
            return
        if batch.is_truncate:
            self._run(self.sql.delete_all())
            return
        try:
            match self.schema.identity:
                case RowIdentity.KEY:
                    self._write_keyed(batch, upserting=upserting)
                case RowIdentity.FULL_ROW:
                    self._write_bag(batch)
                case RowIdentity.APPEND:
                    self._append(batch)
        except ValueError as error:
            raise self._refused(f"rows don't fit its identity {self.schema.identity}: {error}") from error

    def _append(self, batch: ChangeBatch) -> None:
        if not _only_inserts(batch):
            raise ValueError("update or delete: expected inserts only, got others")
        self._copy(batch.columns, staged=False)

    def _write_keyed(self, batch: ChangeBatch, *, upserting: bool) -> None:
        if not upserting and self._is_plain(batch):
            try:
                self._copy(batch.columns, staged=False)
            except psycopg.errors.UniqueViolation:
                raise KeyExists(self.schema.table) from None
            return
        compacted = compact(normalize(batch, self._key))
        if compacted.deletes:
            self._fill_stage(compacted.deletes)
            self._run(self.sql.delete())
        if compacted.moves_meet:
            self._lift(compacted.moves)
        else:
            for rows in compacted.moves:
                self._move(rows)
        for rows in compacted.patches:
            self._patch(rows)
        if compacted.upserts is not None:
            self._fill_stage(compacted.upserts.columns)
            self._run(self.sql.upsert(list(compacted.upserts.columns)))

    def _is_plain(self, batch: ChangeBatch) -> bool:
        """Return whether the batch has only inserts, of whole rows with keys of their own."""
        if not _only_inserts(batch) or any((states != Presence.VALUE).any() for states in batch.presence.values()):
            return False
        if any(name not in batch.columns for name in self._key):
            return False
        return int(encode([batch.columns[name] for name in self._key]).max()) + 1 == len(batch)

    def _patch(self, rows: Rows) -> None:
        names = [name for name in rows.columns if name not in self._key]
        if names:
            self._fill_stage(rows.columns)
            self._expect(len(rows), self._run(self.sql.patch(names)))

    def _move(self, rows: Rows) -> None:
        names = list(rows.columns)
        self._fill_stage(self._with_old_key(rows))
        moved = self._run(self.sql.move(names))
        if moved != len(rows) and rows.complete:
            moved += self._run(self.sql.insert_missing(names))
        self._expect(len(rows), moved)

    def _lift(self, moves: Sequence[Rows]) -> None:
        """Move rows to keys that others leave: take all of them out, then put all of them back.

        A single UPDATE would fail, since a primary key is checked row by row.
        """
        columns = writable_columns(self._cursor.connection, self.target)
        self._run(self.sql.create_lifted(columns))
        for rows in moves:
            names = list(rows.columns)
            self._fill_stage(self._with_old_key(rows))
            lifted = self._run(self.sql.lift(names, columns))
            if lifted != len(rows) and rows.complete:
                lifted += self._run(self.sql.lift_missing(names))
            self._expect(len(rows), lifted)
        self._run(self.sql.put_back(columns))
        self._run(f"DROP TABLE {LIFTED}")

    def _with_old_key(self, rows: Rows) -> Columns:
        return rows.columns | {old_name(i): column for i, column in enumerate(rows.old_key)}

    def _write_bag(self, batch: ChangeBatch) -> None:
        compacted = compact_bag(batch)
        if compacted.deletes or compacted.updates:
            self._run(self.sql.lock())
        if compacted.deletes:
            self._fill_stage(self._with_old_row(compacted.deletes))
            self._expect(_row_count(compacted.deletes), self._run(self.sql.delete_equal()))
        if compacted.updates:
            self._fill_stage(compacted.updates | self._with_old_row(compacted.updates_old))
            self._expect(_row_count(compacted.updates), self._run(self.sql.update_equal(list(compacted.updates))))
        if compacted.inserts:
            self._copy(compacted.inserts, staged=False)

    def _with_old_row(self, columns: Columns) -> Columns:
        return {old_name(self.schema.names.index(name)): column for name, column in columns.items()}

    def _fill_stage(self, columns: Columns) -> None:
        """Make the stage hold these rows and no others."""
        if not self.has_stage:
            self._run(self.sql.create_stage())
            self.has_stage = self._stage_is_new = True
        elif self._staged_row_count > TRUNCATE_ROWS:
            self._run(f"TRUNCATE {self.sql.stage}")
            self._staged_row_count = 0
        elif self._staged_row_count:
            self._run(f"DELETE FROM {self.sql.stage}")
        self._staged_row_count += _row_count(columns)
        self._copy(columns, staged=True)

    def _copy(self, columns: Mapping[str, pa.Array], *, staged: bool) -> None:
        with self._cursor.copy(self.sql.copy_csv(list(columns), staged=staged).encode()) as copy:
            copy.write(to_csv(columns))

    def _run(self, statement: str) -> int:
        """Execute a statement without parameters; return how many rows it touched."""
        return self._cursor.execute(statement.encode()).rowcount

    def _expect(self, expected: int, got: int) -> None:
        if got != expected:
            raise self._refused(
                f"expected {expected} rows to change, got {got}: the others aren't there; copy it again"
            )

    def _refused(self, what: str) -> ApplyRefusedError:
        return ApplyRefusedError(f"table {self.schema.table}: {what}", table=str(self.schema.table))


def _only_inserts(batch: ChangeBatch) -> bool:
    return bool(((batch.ops == Op.INSERT) | (batch.ops == Op.SNAPSHOT)).all())


def _row_count(columns: Columns) -> int:
    return len(next(iter(columns.values())))
