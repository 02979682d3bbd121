"""Watches the demo from the outside: row counts on both sides, the traffic's rate, what the engine says of itself."""

from __future__ import annotations

import time
from typing import Any, Self

import psycopg
from psycopg import errors, sql

from cdc.demo.shop import TABLES

_COUNT_SECONDS = 1.0
_COUNT_SHARE = 0.1
"""Counting takes at most this share of the time, however many rows there are."""
_RATE_SECONDS = 2.0


class RowCounts:
    """Rows per table at the source and in the lake, counted anew now and then. Use it as a context manager."""

    def __init__(self, source_dsn: str, lake_dsn: str, schema: str) -> None:
        self.rows: dict[str, tuple[int, int | None]] = dict.fromkeys(TABLES, (0, None))
        self._dsns = source_dsn, lake_dsn
        self._schema = schema
        self._next = 0.0

    def __enter__(self) -> Self:
        self._source, self._lake = (psycopg.connect(dsn, autocommit=True) for dsn in self._dsns)
        self._lake.execute("SET lock_timeout = '100ms'")
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()
        self._lake.close()

    def refresh(self, *, now: bool = False) -> None:
        """Count if the last count is old enough, or if it has to be ``now``."""
        began = time.monotonic()
        if began < self._next and not now:
            return
        for name in TABLES:
            there = _count(self._source, "public", name)
            here = _count(self._lake, self._schema, name)
            self.rows[name] = (there or 0, here)
        took = time.monotonic() - began
        self._next = began + max(_COUNT_SECONDS, took / _COUNT_SHARE)


class Rate:
    """The slope of a counter over the last seconds."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []

    def per_second(self, value: int) -> float:
        """Take the counter's value now; return its growth per second."""
        now = time.monotonic()
        self._points.append((now, value))
        while len(self._points) > 2 and now - self._points[0][0] > _RATE_SECONDS:
            del self._points[0]
        (first_at, first), (last_at, last) = self._points[0], self._points[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at else 0.0


def all_streaming(status: dict[str, Any] | None, source: str) -> bool:
    """Return whether the engine says that all of the shop's tables have been copied and follow the source."""
    for entry in (status or {}).get("sources", ()):
        if entry["name"] == source:
            states = {table["table"]: table["state"] for table in entry["tables"]}
            return all(states.get(f"public.{name}") == "streaming" for name in TABLES)
    return False


def source_status(status: dict[str, Any] | None, source: str) -> dict[str, Any]:
    """Return a source's part of /api/status; empty while it isn't known."""
    return next((entry for entry in (status or {}).get("sources", ()) if entry["name"] == source), {})


def _count(connection: psycopg.Connection[Any], schema: str, name: str) -> int | None:
    """Count a table's rows; None where it doesn't exist or is locked at the moment."""
    query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, name))
    try:
        row = connection.execute(query).fetchone()
    except (errors.UndefinedTable, errors.InvalidSchemaName, errors.LockNotAvailable):
        return None
    return int(row[0]) if row else None
