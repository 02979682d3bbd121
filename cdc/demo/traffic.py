"""The demo's traffic: what a shop's service does to its database all day, from a seed, at a bounded rate."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg

from cdc.demo.shop import CUSTOMER_COUNT, ORDER_COUNT, PRODUCT_COUNT
from cdc.demo.worker import Worker

CHANGES_PER_SECOND = 1500
BULK_ROWS = 50_000
_KNOWN_ORDERS = 20_000
_BURST_SECONDS = 0.5

Connection = psycopg.Connection[Any]


class Traffic(Worker):
    """Runs transactions against the shop in a thread of its own until it is stopped.

    Counts only what was committed, triggers and cascades included.

    Args:
        rate: changes per second to stay below; the bulk load comes on top.
    """

    def __init__(self, dsn: str, *, seed: int = 1, rate: int = CHANGES_PER_SECOND) -> None:
        super().__init__("traffic")
        self.counts: Counter[str] = Counter()
        self._dsn = dsn
        self._rate = rate
        self._random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._orders = [f"O-{number}" for number in range(1, ORDER_COUNT + 1)]
        self._next_order = ORDER_COUNT
        self._next_customer = CUSTOMER_COUNT
        self._requests: list[tuple[Callable[[Connection], int], threading.Event]] = []

    @property
    def changes(self) -> int:
        """Rows inserted, updated and deleted so far."""
        return self.counts["changes"]

    def bulk_load(self, timeout_seconds: float) -> bool:
        """Import many customers in one transaction; return whether it was committed in time."""
        return self._request(self._import_customers, timeout_seconds)

    def truncate(self, timeout_seconds: float) -> bool:
        """Throw all page views away by TRUNCATE; return whether it was committed in time."""
        return self._request(self._rotate_page_views, timeout_seconds)

    def step(self, connection: Connection) -> None:
        """Run one transaction, chosen at random, and count it."""
        (action,) = self._random.choices(list(_ACTIONS), weights=list(_ACTIONS.values()))
        self._count(action.__name__.strip("_"), action(self, connection))

    def _request(self, action: Callable[[Connection], int], timeout_seconds: float) -> bool:
        done = threading.Event()
        self._requests.append((action, done))
        return done.wait(timeout_seconds)

    def work(self) -> None:
        """Run transactions."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            self._loop(connection)

    def _loop(self, connection: Connection) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            if self._requests:
                action, done = self._requests.pop(0)
                self._count(action.__name__.strip("_"), action(connection))
                done.set()
            before = self.changes
            self.step(connection)
            due = max(due + (self.changes - before) / self._rate, time.monotonic() - _BURST_SECONDS)
            self._stop.wait(max(0.0, due - time.monotonic()))

    def _count(self, action: str, changes: int) -> None:
        self.counts.update({action: 1, "transactions": 1, "changes": changes})

    def _new_customer(self, connection: Connection) -> int:
        self._next_customer += 1
        number = self._next_customer
        city = self._random.choice(["Berlin", "Zürich", "東京", "Łódź", "l'Aquila"])
        return connection.execute(
            "INSERT INTO customers (email, name, phone, address, interests)"
            " VALUES (%s, %s, %s, jsonb_build_object('city', %s::text), %s)",
            [
                f"c{number}@example.org",
                f"New {number}",
                self._random.choice([None, "", "0800"]),
                city,
                ["new", None, ""],
            ],
        ).rowcount

    def _place_order(self, connection: Connection) -> int:
        self._next_order += 1
        number = f"O-{self._next_order}"
        lines = self._random.randint(1, 6)
        with connection.transaction():
            changes = connection.execute(
                "INSERT INTO orders (number, customer_id, total) VALUES (%s, %s, %s)",
                [number, self._random.randint(1, CUSTOMER_COUNT), self._random.randint(1, 100_000) / 100],
            ).rowcount
            for line, sku in enumerate(self._skus(lines), 1):
                changes += connection.execute(
                    "INSERT INTO order_items SELECT %s, %s, sku, %s, price FROM products WHERE sku = %s",
                    [number, line, self._random.randint(1, 9), sku],
                ).rowcount
                changes += connection.execute("UPDATE products SET stock = stock - 1 WHERE sku = %s", [sku]).rowcount
            if self._random.random() < 0.7:
                changes += connection.execute(
                    "INSERT INTO payments (order_number, amount, fee) SELECT number, total, total * 0.029 FROM orders"
                    " WHERE number = %s",
                    [number],
                ).rowcount
        self._orders.append(number)
        del self._orders[:-_KNOWN_ORDERS]
        return changes

    def _advance_orders(self, connection: Connection) -> int:
        return connection.execute(
            "UPDATE orders SET status = CASE status WHEN 'new' THEN 'paid' WHEN 'paid' THEN 'shipped'"
            " ELSE 'delivered' END::order_status WHERE number = ANY (%s)",
            [self._some_orders(8)],
        ).rowcount

    def _annotate_order(self, connection: Connection) -> int:
        note = self._random.choice([None, "", "\\N", "gift\twrap\r\n", 'it\'s "urgent" \\ now'])
        return connection.execute("UPDATE orders SET note = %s WHERE number = %s", [note, self._an_order()]).rowcount

    def _renumber_order(self, connection: Connection) -> int:
        """Change a primary key; items and payments follow by cascade."""
        old = self._an_order()
        new = f"R{self._random.randint(1, 10**9)}-{old[-12:]}"
        with connection.transaction():
            changes = connection.execute("UPDATE orders SET number = %s WHERE number = %s", [new, old]).rowcount
            changes += self._belongings(connection, new)
        if changes:
            self._orders[self._orders.index(old)] = new
        return changes

    def _swap_orders(self, connection: Connection) -> int:
        """Let two rows exchange their keys within one transaction."""
        first, second = self._an_order(), self._an_order()
        if first == second:
            return 0
        changes = 0
        with connection.transaction():
            for old, new in ((first, "swap"), (second, first), ("swap", second)):
                changes += connection.execute("UPDATE orders SET number = %s WHERE number = %s", [new, old]).rowcount
                changes += self._belongings(connection, new)
        return changes

    def _cancel_order(self, connection: Connection) -> int:
        number = self._an_order()
        self._orders.remove(number)
        with connection.transaction():
            changes = self._belongings(connection, number)
            return changes + connection.execute("DELETE FROM orders WHERE number = %s", [number]).rowcount

    def _replace_order(self, connection: Connection) -> int:
        """Delete a row and insert one of the same key, in one transaction."""
        number = self._an_order()
        with connection.transaction():
            changes = self._belongings(connection, number)
            changes += connection.execute("DELETE FROM orders WHERE number = %s", [number]).rowcount
            changes += connection.execute(
                "INSERT INTO orders (number, customer_id, total, note) VALUES (%s, 1, 0, 'replaced')", [number]
            ).rowcount
        return changes

    def _change_prices(self, connection: Connection) -> int:
        """Leave the big column alone: the source doesn't send it then."""
        return connection.execute(
            "UPDATE products SET price = price * 1.01, updated_at = now() WHERE sku = ANY (%s)", [self._skus(20)]
        ).rowcount

    def _rewrite_manual(self, connection: Connection) -> int:
        return connection.execute(
            "UPDATE products SET manual = repeat(md5(%s::text), 150), attributes = attributes || '{\"rev\": null}'"
            " WHERE sku = ANY (%s)",
            [self._random.random(), self._skus(2)],
        ).rowcount

    def _change_customers(self, connection: Connection) -> int:
        first = self._random.randint(1, CUSTOMER_COUNT)
        return connection.execute(
            "UPDATE customers SET address = address || jsonb_build_object('moved', now()),"
            " interests = interests[2:] || %s::text, email = 'x' || email WHERE id BETWEEN %s AND %s",
            [self._random.choice(["tea", None, "a,b"]), first, first + 10],
        ).rowcount

    def _view_pages(self, connection: Connection) -> int:
        return connection.execute(
            "INSERT INTO page_views"
            " SELECT %s, '/product/' || i, i * interval '1 ms', date_trunc('second', now()::timestamp)"
            " FROM generate_series(1, %s) i",
            [self._random.randint(1, 50), self._random.randint(5, 40)],
        ).rowcount

    def _forget_visitor(self, connection: Connection) -> int:
        return connection.execute(
            "DELETE FROM page_views WHERE ctid = ANY (ARRAY(SELECT ctid FROM page_views WHERE visitor = %s LIMIT 25))",
            [self._random.randint(1, 50)],
        ).rowcount

    def _correct_views(self, connection: Connection) -> int:
        return connection.execute(
            "UPDATE page_views SET took = NULL WHERE ctid = ANY (ARRAY(SELECT ctid FROM page_views WHERE visitor = %s"
            " AND took IS NOT NULL LIMIT 5))",
            [self._random.randint(1, 50)],
        ).rowcount

    def _change_ones_mind(self, connection: Connection) -> int:
        """Roll a whole transaction back."""
        with connection.transaction(force_rollback=True):
            connection.execute("DELETE FROM payments WHERE order_number = %s", [self._an_order()])
            connection.execute("UPDATE customers SET name = 'rolled back' WHERE id < 50")
        return 0

    def _change_ones_mind_in_part(self, connection: Connection) -> int:
        """Commit a transaction of which a subtransaction was rolled back."""
        with connection.transaction():
            changes = connection.execute(
                "UPDATE products SET stock = stock + 1 WHERE sku = ANY (%s)", [self._skus(3)]
            ).rowcount
            with connection.transaction(force_rollback=True):
                connection.execute("UPDATE products SET stock = -1 WHERE sku = ANY (%s)", [self._skus(3)])
        return changes

    def _import_customers(self, connection: Connection) -> int:
        return connection.execute(
            "INSERT INTO customers (email, name, address, interests)"
            " SELECT 'import' || i || '@example.net', 'Imported ' || i, '{\"city\": \"Oslo\"}', ARRAY['import']"
            " FROM generate_series(1, %s) i",
            [BULK_ROWS],
        ).rowcount

    def _rotate_page_views(self, connection: Connection) -> int:
        connection.execute("TRUNCATE page_views")
        return 1

    def _belongings(self, connection: Connection, number: str) -> int:
        """Count the rows of other tables that follow an order's change by cascade."""
        row = connection.execute(
            "SELECT (SELECT count(*) FROM order_items WHERE order_number = %(number)s)"
            " + (SELECT count(*) FROM payments WHERE order_number = %(number)s)",
            {"number": number},
        ).fetchone()
        return int(row[0]) if row else 0

    def _an_order(self) -> str:
        return self._random.choice(self._orders)

    def _some_orders(self, count: int) -> list[str]:
        return sorted(set(self._random.choices(self._orders, k=count)))

    def _skus(self, count: int) -> list[str]:
        return [f"SKU-{number:05}" for number in sorted(self._random.sample(range(1, PRODUCT_COUNT + 1), count))]


_ACTIONS: dict[Callable[[Traffic, Connection], int], int] = {
    Traffic._new_customer: 6,
    Traffic._place_order: 30,
    Traffic._advance_orders: 15,
    Traffic._annotate_order: 6,
    Traffic._renumber_order: 3,
    Traffic._swap_orders: 1,
    Traffic._cancel_order: 4,
    Traffic._replace_order: 2,
    Traffic._change_prices: 4,
    Traffic._rewrite_manual: 2,
    Traffic._change_customers: 6,
    Traffic._view_pages: 12,
    Traffic._forget_visitor: 2,
    Traffic._correct_views: 2,
    Traffic._change_ones_mind: 3,
    Traffic._change_ones_mind_in_part: 2,
}
"""Transactions and how often they come."""
