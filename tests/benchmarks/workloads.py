"""The work: one table of eight columns, about 270 bytes a row, changed in transactions of a given size.

Every workload ends with the insert of a marker row, so that a reader of a copy sees when all of it has arrived.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

TABLE = """
CREATE TABLE ev (id bigint PRIMARY KEY, n int, name text, amount numeric(12,2), ts timestamptz, ok bool, doc jsonb,
                 uid uuid)
"""

_ROWS = """
INSERT INTO ev SELECT i, i % 100, 'name of ' || i, i * 0.37, now(), i % 2 = 0,
       jsonb_build_object('a', i, 'b', 'some text that is not too short at all', 'c', array[1, 2, 3]),
       md5(i::text)::uuid
  FROM generate_series(first, last) i
"""

_PROCEDURE = """
CREATE PROCEDURE {name}(low bigint, high bigint, step bigint) LANGUAGE plpgsql AS $$
DECLARE first bigint := low; last bigint;
BEGIN
  WHILE first <= high LOOP
    last := LEAST(first + step - 1, high);
    {statement};
    COMMIT;
    first := last + 1;
  END LOOP;
END $$
"""

_STATEMENTS = {
    "inserts": _ROWS,
    "updates": "UPDATE ev SET n = n + 1, ts = now() WHERE id BETWEEN first AND last",
    "deletes": "DELETE FROM ev WHERE id BETWEEN first AND last",
}

MARKERS_FROM = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Workload:
    """Changes ``low`` to ``high``, ``step`` rows a transaction, by one of the procedures."""

    name: str
    procedure: str
    low: int
    high: int
    step: int

    @property
    def changes(self) -> int:
        """Return how many rows are changed."""
        return self.high - self.low + 1


def standard(scale: float) -> list[Workload]:
    """Return the workloads, in an order in which each finds the rows that it changes."""
    million = int(1_000_000 * scale)
    return [
        Workload("inserts, 10,000 a transaction", "inserts", 1, million, 10_000),
        Workload("updates, 1,000 a transaction", "updates", 1, million // 2, 1_000),
        Workload("deletes, 1,000 a transaction", "deletes", 1, million * 3 // 10, 1_000),
        Workload("inserts, 1 a transaction", "inserts", 2 * million, 2 * million + million * 3 // 10 - 1, 1),
    ]


def create(connection: psycopg.Connection) -> None:
    """Create the table and the procedures."""
    connection.execute(TABLE)
    for name, statement in _STATEMENTS.items():
        connection.execute(_PROCEDURE.format(name=name, statement=statement))


def perform(connection: psycopg.Connection, workload: Workload, marker: int) -> None:
    """Do the work, then insert the marker; all of it is flushed on return."""
    connection.execute("SET synchronous_commit = off")
    connection.execute(f"CALL {workload.procedure}({workload.low}, {workload.high}, {workload.step})")
    connection.execute("SET synchronous_commit = on")
    connection.execute("INSERT INTO ev (id) VALUES (%s)", (marker,))
