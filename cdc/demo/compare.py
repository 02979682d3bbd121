"""Compares tables of two databases row by row, as the demo's verdict and as the tests' oracle.

Independent of the engine: it shares no code with connectors and sinks, reads no position and no state, and asks each
server for ``ROW(columns)::text``, PostgreSQL's own output functions under fixed settings. That text keeps NULL and the
empty string apart, and doesn't depend on a column having the same type on both sides, only on meaning the same.

Both sides are read in one snapshot each, ordered by key and digest, and merged; memory is bounded whatever the size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import psycopg
from psycopg import sql

Row = tuple[bytes, bytes]
"""(text of the key, digest of the row)."""

_SETTINGS = (
    "SET DateStyle = 'ISO, YMD'",
    "SET IntervalStyle = 'postgres'",
    "SET TimeZone = 'UTC'",
    "SET extra_float_digits = 3",
    "SET bytea_output = 'hex'",
    "SET search_path = ''",
    "SET client_encoding = 'UTF8'",
)
_FETCH_ROWS = 20_000
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Pair:
    """What to compare: (schema, name) at the source and in the lake.

    Attributes:
        columns: names to compare; None for all that the source's table stores, generated ones left out.
    """

    source: tuple[str, str]
    lake: tuple[str, str]
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was found for one pair.

    Attributes:
        missing: rows that only the source has, by key; without a key, copies of a row count each.
        extra: rows that only the lake has.
        changed: rows of the same key whose values differ.
        absent_columns: columns that the lake's table lacks; then, or without the table, no row was compared.
        examples: keys (or, without a key, digests) of some of these rows.
    """

    pair: Pair
    source_rows: int = 0
    lake_rows: int = 0
    missing: int = 0
    extra: int = 0
    changed: int = 0
    absent_table: bool = False
    absent_columns: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether both sides hold the same rows."""
        return not (self.missing or self.extra or self.changed or self.absent_table or self.absent_columns)

    def __str__(self) -> str:
        name = ".".join(self.pair.source)
        if self.absent_table:
            return f"{name}: no table {'.'.join(self.pair.lake)} in the lake"
        if self.absent_columns:
            return f"{name}: the lake lacks columns {', '.join(self.absent_columns)}"
        if self.identical:
            return f"{name}: identical, {self.source_rows:,} rows"
        return (
            f"{name}: {self.missing:,} missing, {self.extra:,} extra, {self.changed:,} changed of {self.source_rows:,}"
        )


def differences(source_dsn: str, lake_dsn: str, pairs: Sequence[Pair]) -> list[Comparison]:
    """Return the pairs that aren't identical."""
    return [found for found in compare(source_dsn, lake_dsn, pairs) if not found.identical]


def compare(source_dsn: str, lake_dsn: str, pairs: Sequence[Pair]) -> list[Comparison]:
    """Compare each pair's rows; all of a side's tables are read in one snapshot."""
    with psycopg.connect(source_dsn) as source, psycopg.connect(lake_dsn) as lake:
        for connection in (source, lake):
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            for statement in _SETTINGS:
                connection.execute(statement)
        return [_compare(source, lake, pair) for pair in pairs]


def tables_of(dsn: str, schema: str) -> list[str]:
    """Return the names of a schema's ordinary and partitioned tables, partitions left out, sorted."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE nspname = %s AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY relname",
            [schema],
        )
        return [name for (name,) in rows]


def _compare(source: psycopg.Connection[Any], lake: psycopg.Connection[Any], pair: Pair) -> Comparison:
    columns = pair.columns or tuple(_columns(source, pair.source))
    present = _columns(lake, pair.lake)
    if not present:
        return Comparison(pair=pair, absent_table=True)
    absent = tuple(name for name in columns if name not in present)
    if absent:
        return Comparison(pair=pair, absent_columns=absent)
    key = _key(source, pair.source)
    if not set(key) <= set(columns):
        key = []
    ours, theirs = (_rows(side, name, columns, key) for side, name in ((source, pair.source), (lake, pair.lake)))
    return _merge(pair, ours, theirs, keyed=bool(key))


def _columns(connection: psycopg.Connection[Any], table: tuple[str, str]) -> list[str]:
    rows = connection.execute(
        "SELECT attname FROM pg_attribute"
        " JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE nspname = %s AND relname = %s AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
        " ORDER BY attnum",
        table,
    )
    return [name for (name,) in rows]


def _key(connection: psycopg.Connection[Any], table: tuple[str, str]) -> list[str]:
    """Return the columns of the primary key, or else of the replica identity's index."""
    rows = connection.execute(
        "SELECT indisprimary, array_agg(attname::text) FROM pg_index"
        " JOIN pg_class c ON c.oid = indrelid JOIN pg_namespace n ON n.oid = relnamespace"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY ((indkey::int2[])[0:indnkeyatts - 1])"
        " WHERE nspname = %s AND relname = %s AND (indisprimary OR indisreplident)"
        " GROUP BY indexrelid, indisprimary ORDER BY indisprimary DESC LIMIT 1",
        table,
    ).fetchall()
    return sorted(rows[0][1]) if rows else []


def _rows(
    connection: psycopg.Connection[Any], table: tuple[str, str], columns: Sequence[str], key: Sequence[str]
) -> Iterator[Row]:
    """Yield rows ordered by (key, digest), as octets, so that no collation matters; the digest stands in for a key."""
    digest = sql.SQL("sha256(convert_to(ROW({})::text, 'UTF8'))").format(_names(columns))
    text = sql.SQL("convert_to(ROW({})::text, 'UTF8')").format(_names(key)) if key else digest
    query = sql.SQL("SELECT {}, {} FROM {} ORDER BY 1, 2").format(text, digest, sql.Identifier(*table))
    with connection.cursor(name="compare") as cursor:
        cursor.itersize = _FETCH_ROWS
        cursor.execute(query)
        yield from cursor


def _names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in columns)


def _merge(pair: Pair, source: Iterator[Row], lake: Iterator[Row], *, keyed: bool) -> Comparison:
    """Walk both sides in step; rows are equal when key and digest are, each as often as it occurs."""
    totals: Counter[str] = Counter()
    examples: list[str] = []
    for key, ours, theirs in _in_step(source, lake):
        totals.update(source=ours.total(), lake=theirs.total())
        if ours == theirs:
            continue
        missing, extra = (ours - theirs).total(), (theirs - ours).total()
        changed = min(missing, extra)
        totals.update(missing=missing - changed, extra=extra - changed, changed=changed)
        if len(examples) < _EXAMPLES:
            examples.append(key.decode() if keyed else key.hex())
    return Comparison(
        pair=pair,
        source_rows=totals["source"],
        lake_rows=totals["lake"],
        missing=totals["missing"],
        extra=totals["extra"],
        changed=totals["changed"],
        examples=tuple(examples),
    )


def _in_step(source: Iterator[Row], lake: Iterator[Row]) -> Iterator[tuple[bytes, Counter[bytes], Counter[bytes]]]:
    """Yield every key that either side has, with the digests of its rows on both."""
    sides = [groupby(side, itemgetter(0)) for side in (source, lake)]
    heads = [_next(side) for side in sides]
    while any(head is not None for head in heads):
        key = min(head[0] for head in heads if head is not None)
        digests: list[Counter[bytes]] = []
        for at, head in enumerate(heads):
            if head is not None and head[0] == key:
                digests.append(head[1])
                heads[at] = _next(sides[at])
            else:
                digests.append(Counter())
        yield key, digests[0], digests[1]


def _next(groups: Iterator[tuple[bytes, Iterator[Row]]]) -> tuple[bytes, Counter[bytes]] | None:
    """Return the next key with its digests, read to the end: groupby forgets a group once it moves on."""
    for key, rows in groups:
        return key, Counter(digest for _, digest in rows)
    return None
