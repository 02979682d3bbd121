"""The comparison must be able to fail: every kind of difference is planted and has to be found."""

from __future__ import annotations

import psycopg
import pytest
from oracle import Comparison, Pair, compare, differences, tables_of

pytestmark = pytest.mark.servers

KEYED = "CREATE TABLE t (id int PRIMARY KEY, a text, n numeric, at timestamptz, xs int[])"
ROWS = (
    "INSERT INTO t SELECT i, 'row ' || i, i / 8.0, timestamptz '2024-01-01 00:00+00' + i * interval '1 h',"
    " ARRAY[i, NULL] FROM generate_series(1, 200) i"
)
T = Pair(("public", "t"), ("public", "t"))


def found(source_dsn: str, lake_dsn: str, *lake_changes: str, schema: str = KEYED, rows: str = ROWS) -> Comparison:
    """Make both sides equal, change the lake, compare."""
    for dsn, statements in ((source_dsn, ()), (lake_dsn, lake_changes)):
        with psycopg.connect(dsn, autocommit=True) as connection:
            for statement in (schema, rows, *statements):
                connection.execute(statement)
    (comparison,) = compare(source_dsn, lake_dsn, [T])
    return comparison


def counts(comparison: Comparison) -> tuple[int, int, int]:
    return comparison.missing, comparison.extra, comparison.changed


def test_equal_tables_are_identical(source_dsn: str, lake_dsn: str) -> None:
    comparison = found(source_dsn, lake_dsn)
    assert comparison.identical
    assert (comparison.source_rows, comparison.lake_rows) == (200, 200)
    assert differences(source_dsn, lake_dsn, [T]) == []
    assert str(comparison) == "public.t: identical, 200 rows"


def test_types_settings_and_columns_of_the_lakes_own_make_no_difference(source_dsn: str, lake_dsn: str) -> None:
    comparison = found(
        source_dsn,
        lake_dsn,
        "ALTER TABLE t ALTER a TYPE varchar(50), ADD segment text DEFAULT 'gold'",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Tokyo''', current_database()); END $$",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET datestyle = ''German''', current_database()); END $$",
    )
    assert comparison.identical


def test_missing_extra_and_changed_rows_are_counted_by_key(source_dsn: str, lake_dsn: str) -> None:
    comparison = found(
        source_dsn,
        lake_dsn,
        "DELETE FROM t WHERE id IN (1, 7, 200)",
        "INSERT INTO t (id) VALUES (0), (1000)",
        "UPDATE t SET n = n + 0.001 WHERE id = 50",
    )
    assert counts(comparison) == (3, 2, 1)
    assert not comparison.identical
    assert "(50)" in comparison.examples
    assert str(comparison) == "public.t: 3 missing, 2 extra, 1 changed of 200"
    assert differences(source_dsn, lake_dsn, [T]) == [comparison]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE t SET a = '' WHERE id = 3",
        "UPDATE t SET a = 'row 3 ' WHERE id = 3",
        "UPDATE t SET n = 0.3750 WHERE id = 3",
        "UPDATE t SET at = at + interval '1 microsecond' WHERE id = 3",
        "UPDATE t SET xs = ARRAY[3] WHERE id = 3",
        "UPDATE t SET xs = NULL WHERE id = 3",
    ],
)
def test_the_smallest_change_of_a_value_is_found(source_dsn: str, lake_dsn: str, change: str) -> None:
    assert counts(found(source_dsn, lake_dsn, change)) == (0, 0, 1)


def test_null_and_the_empty_string_differ(source_dsn: str, lake_dsn: str) -> None:
    comparison = found(
        source_dsn, lake_dsn, "UPDATE t SET a = NULL", schema="CREATE TABLE t (id int PRIMARY KEY, a text)",
        rows="INSERT INTO t VALUES (1, ''), (2, NULL)",
    )  # fmt: skip
    assert counts(comparison) == (0, 0, 1)


def test_copies_of_a_row_count_in_tables_without_a_key(source_dsn: str, lake_dsn: str) -> None:
    comparison = found(
        source_dsn,
        lake_dsn,
        "DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t WHERE a = 'twice')",
        "INSERT INTO t VALUES ('once', 1), ('new', NULL)",
        schema="CREATE TABLE t (a text, n int)",
        rows="INSERT INTO t VALUES ('once', 1), ('twice', 2), ('twice', 2), (NULL, NULL)",
    )
    assert counts(comparison) == (1, 2, 0)


def test_a_key_that_occurs_twice_in_the_lake_is_found(source_dsn: str, lake_dsn: str) -> None:
    comparison = found(
        source_dsn, lake_dsn, "ALTER TABLE t DROP CONSTRAINT t_pkey", "INSERT INTO t SELECT * FROM t LIMIT 1"
    )
    assert counts(comparison) == (0, 1, 0)


def test_an_empty_lake_table_misses_every_row(source_dsn: str, lake_dsn: str) -> None:
    assert counts(found(source_dsn, lake_dsn, "TRUNCATE t")) == (200, 0, 0)


def test_an_absent_table_or_column_is_no_equality(source_dsn: str, lake_dsn: str) -> None:
    comparison = found(source_dsn, lake_dsn, "ALTER TABLE t DROP n")
    assert comparison.absent_columns == ("n",)
    assert not comparison.identical
    with psycopg.connect(lake_dsn, autocommit=True) as lake:
        lake.execute("DROP TABLE t")
    (comparison,) = compare(source_dsn, lake_dsn, [T])
    assert comparison.absent_table
    assert not comparison.identical


@pytest.mark.all_versions
def test_tables_are_listed_without_their_partitions(source_dsn: str, source_server: object) -> None:
    with psycopg.connect(source_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE p (id int) PARTITION BY RANGE (id)")
        connection.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)")
        connection.execute("CREATE VIEW v AS SELECT 1")
    assert tables_of(source_dsn, "public") == ["p"]
