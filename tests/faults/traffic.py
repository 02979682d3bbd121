"""Nasty traffic for fault tests: every kind of change, all the time, until told to pause or stop."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import psycopg

TABLES = ("account", "ledger", "bag", "doc", "swap", "wiped")

SCHEMA = """
CREATE TABLE account (id int PRIMARY KEY, balance int, note text);
CREATE TABLE ledger (account int, amount int, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE bag (n int, note text);
ALTER TABLE bag REPLICA IDENTITY FULL;
CREATE TABLE doc (id int PRIMARY KEY, revision int, body text);
ALTER TABLE doc ALTER body SET STORAGE EXTERNAL;
CREATE TABLE swap (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, note text);
ALTER TABLE swap REPLICA IDENTITY FULL;
CREATE TABLE wiped (id serial PRIMARY KEY, note text);
INSERT INTO account SELECT n, 0, 'start' FROM generate_series(1, 200) n;
INSERT INTO bag SELECT n % 5, 'same' FROM generate_series(1, 40) n;
INSERT INTO doc SELECT n, 0, repeat('body', 3000) FROM generate_series(1, 20) n;
INSERT INTO swap SELECT n, 'row ' || n FROM generate_series(1, 50) n;
"""


class Traffic:
    """Writes in a thread of its own; ``quiet`` holds it between two transactions."""

    def __init__(self, dsn: str, seed: int, *, large_rows: int = 20_000) -> None:
        self._random = random.Random(seed)
        self._large_rows = large_rows
        self._connection = psycopg.connect(dsn)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._next_id = 10_000
        self.transactions = 0
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Hold the traffic while the context lasts."""
        with self._lock:
            yield
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                with self._lock:
                    self.step()
        except BaseException as error:  # noqa: BLE001 - raised again by whoever asks for quiet
            self.error = error

    def step(self, kind: str | None = None) -> None:
        """Make one transaction, of a kind chosen at random or given."""
        kinds = {
            "transfer": 40,
            "bag": 15,
            "doc": 15,
            "swap": 8,
            "key": 8,
            "many": 8,
            "rollback": 4,
            "wipe": 2,
            "large": 0.4,
        }
        kind = kind or self._random.choices(list(kinds), list(kinds.values()))[0]
        with self._connection.transaction(force_rollback=kind == "rollback"):
            getattr(self, f"_{kind}")(self._connection.execute)
        self.transactions += 1

    def _account(self) -> int:
        return self._random.randint(1, 200)

    def _fresh(self) -> int:
        self._next_id += 1
        return self._next_id

    def _transfer(self, run: Any) -> None:
        amount, giver, taker = self._random.randint(1, 99), self._account(), self._account()
        run("UPDATE account SET balance = balance - %s WHERE id = %s", [amount, giver])
        run("INSERT INTO ledger (account, amount) VALUES (%s, %s), (%s, %s)", [giver, -amount, taker, amount])
        run("UPDATE account SET balance = balance + %s WHERE id = %s", [amount, taker])

    def _bag(self, run: Any) -> None:
        n = self._random.randint(0, 5)
        one = "ctid = (SELECT min(ctid) FROM bag WHERE n = %s)"
        run("INSERT INTO bag VALUES (%s, 'same'), (%s, 'same'), (%s, NULL)", [n, n, n])
        run(f"DELETE FROM bag WHERE {one}", [self._random.randint(0, 5)])
        run(f"DELETE FROM bag WHERE {one}", [self._random.randint(0, 5)])
        run(f"UPDATE bag SET n = %s WHERE {one}", [self._random.randint(0, 5), n])

    def _doc(self, run: Any) -> None:
        number = self._random.randint(1, 20)
        run("UPDATE doc SET revision = revision + 1 WHERE id = %s", [number])
        if self._random.random() < 0.3:
            run("UPDATE doc SET body = repeat(%s, 3000) WHERE id = %s", [str(self._fresh()), number])
        if self._random.random() < 0.2:
            run("UPDATE doc SET id = -id WHERE id = %s", [number])
            run("UPDATE doc SET revision = revision + 1 WHERE id = %s", [-number])
            run("UPDATE doc SET id = -id WHERE id = %s", [-number])

    def _swap(self, run: Any) -> None:
        a = self._random.randint(1, 49)
        run("UPDATE swap SET id = %s - id WHERE id IN (%s, %s)", [2 * a + 1, a, a + 1])

    def _key(self, run: Any) -> None:
        old = self._account()
        run("UPDATE account SET id = %s WHERE id = %s", [self._fresh(), old])
        run("INSERT INTO account VALUES (%s, 0, 'took the key') ON CONFLICT DO NOTHING", [old])

    def _many(self, run: Any) -> None:
        first = self._fresh()
        self._next_id += 60
        run("INSERT INTO account SELECT n, 0, 'many' FROM generate_series(%s::int, %s::int) n", [first, first + 50])
        run("DELETE FROM account WHERE id > 300 AND id %% 3 = %s", [self._random.randint(0, 2)])
        run("UPDATE account SET note = %s WHERE id %% 7 = 1", [str(first)])
        run("INSERT INTO wiped (note) SELECT 'many' FROM generate_series(1, 20)")

    _rollback = _many

    def _wipe(self, run: Any) -> None:
        run("INSERT INTO wiped (note) VALUES ('gone at once')")
        run("TRUNCATE wiped RESTART IDENTITY")
        run("INSERT INTO wiped (note) VALUES ('first')")

    def _large(self, run: Any) -> None:
        run("INSERT INTO wiped (note) SELECT 'large ' || n FROM generate_series(1, %s::int) n", [self._large_rows])
        run("UPDATE account SET balance = balance + 1")
        run("UPDATE wiped SET note = note || '!' WHERE id %% 2 = 0", [])
        run("DELETE FROM wiped WHERE id %% 3 = 0", [])
