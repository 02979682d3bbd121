"""Where tables go in the lake."""

from __future__ import annotations

import random

from cdc.schema import TableId
from cdc.topology import lake_names

ORDERS, LINES = TableId("public", "orders"), TableId("public", "lines")


def test_a_table_keeps_its_name() -> None:
    assert lake_names("shop", [ORDERS, LINES]) == (
        {ORDERS: TableId("shop", "orders"), LINES: TableId("shop", "lines")},
        {},
    )


def test_nothing_needs_no_place() -> None:
    assert lake_names("shop", []) == ({}, {})


def test_of_two_tables_with_one_name_the_first_has_it_and_the_other_hears_why() -> None:
    other, third = TableId("archive", "orders"), TableId("sales", "orders")
    places, refused = lake_names("shop", [ORDERS, third, other, LINES])
    assert places == {other: TableId("shop", "orders"), LINES: TableId("shop", "lines")}
    assert refused.keys() == {ORDERS, third}
    for table, reason in refused.items():
        assert reason.startswith(f"table {table}: expected a free name in the lake, but shop.orders is the copy of")
        assert "archive.orders" in reason


def test_the_order_of_the_tables_does_not_matter() -> None:
    tables = [TableId(schema, name) for schema in "abc" for name in "xyz"]
    expected = lake_names("shop", tables)
    for seed in range(5):
        shuffled = random.Random(seed).sample(tables, len(tables))
        assert lake_names("shop", shuffled) == expected
    assert {table.schema for table in expected[0]} == {"a"}


def test_names_that_differ_in_case_only_are_different() -> None:
    places, refused = lake_names("shop", [ORDERS, TableId("public", "Orders")])
    assert (len(places), refused) == (2, {})
