"""Somebody who works in the lake while it is being kept in step: a column of their own, an index, a view.

At the end all of it must have survived: every update of the source, the crash, the bulk load.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors, sql

from cdc.demo.worker import Worker

_PAUSE_SECONDS = 0.2
_WAIT_SECONDS = 0.1
_ROWS = 40
_SEGMENTS = ("bronze", "silver", "gold", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survival:
    """What is left of the enrichment.

    Attributes:
        rows: how many rows were enriched.
        lost: how many of them no longer hold what was written.
    """

    rows: int
    lost: int
    index: bool
    view: bool

    @property
    def complete(self) -> bool:
        """Whether there was something to lose and nothing was lost."""
        return bool(self.rows) and not self.lost and self.index and self.view


class Enrichment(Worker):
    """Adds ``segment`` to the lake's customers and keeps filling it, in a thread of its own, until it is stopped."""

    def __init__(self, lake_dsn: str, schema: str, *, seed: int = 2) -> None:
        super().__init__("enrichment")
        self.expected: dict[int, str | None] = {}
        self._dsn = lake_dsn
        self._schema = schema
        self._random = random.Random(seed)  # noqa: S311 - reproducible, not secret

    def survival(self) -> Survival:
        """Compare what the lake holds now with what was written."""
        with psycopg.connect(self._dsn) as connection:
            if not self._exists(connection, "customers"):
                return Survival(rows=len(self.expected), lost=len(self.expected), index=False, view=False)
            present: dict[int, str | None] = {}
            if self.expected:
                query = self._sql("SELECT id, segment FROM {}.customers WHERE id = ANY (%s)")
                present = dict(connection.execute(query, [list(self.expected)]).fetchall())
            lost = sum(1 for number, segment in self.expected.items() if present.get(number, "gone") != segment)
            index, view = (self._exists(connection, name) for name in ("customers_by_segment", "segments"))
            return Survival(rows=len(self.expected), lost=lost, index=index, view=view)

    def work(self) -> None:
        """Begin as soon as the lake has the table."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not (self._exists(connection, "customers") or self._stop.is_set()):
                self._stop.wait(_WAIT_SECONDS)
            for statement in (
                "ALTER TABLE {}.customers ADD COLUMN segment text",
                "CREATE INDEX customers_by_segment ON {}.customers (segment)",
                "CREATE VIEW {0}.segments AS SELECT segment, count(*) FROM {0}.customers GROUP BY segment",
            ):
                self._patiently(connection, self._sql(statement))
            while not self._stop.wait(_PAUSE_SECONDS):
                self._fill(connection)

    def _fill(self, connection: psycopg.Connection[Any]) -> None:
        segment = self._random.choice(_SEGMENTS)
        rows = self._patiently(
            connection,
            self._sql(
                "UPDATE {0}.customers SET segment = %s WHERE id = ANY (ARRAY(SELECT id FROM {0}.customers"
                " WHERE id > %s ORDER BY id LIMIT %s)) RETURNING id"
            ),
            [segment, self._random.randint(0, 6000), _ROWS],
        )
        self.expected.update((number, segment) for (number,) in rows)

    def _patiently(
        self, connection: psycopg.Connection[Any], statement: sql.Composed, arguments: list[Any] | None = None
    ) -> list[Any]:
        """Execute a statement as any lake user would: again when it collided with somebody else."""
        while not self._stop.is_set():
            try:
                with connection.transaction():
                    connection.execute("SET LOCAL lock_timeout = '2s'")
                    cursor = connection.execute(statement, arguments)
                    return cursor.fetchall() if cursor.description else []
            except (errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure):
                self._stop.wait(_WAIT_SECONDS)
        return []

    def _exists(self, connection: psycopg.Connection[Any], name: str) -> bool:
        row = connection.execute(
            "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = %s AND relname = %s",
            [self._schema, name],
        ).fetchone()
        return row is not None

    def _sql(self, text: str) -> sql.Composed:
        return sql.SQL(text).format(sql.Identifier(self._schema))
