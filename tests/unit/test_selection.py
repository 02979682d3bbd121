from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.schema import TableId
from cdc.selection import check_pattern, excludes, quote, selects, unmatched

ORDERS = TableId("public", "orders")


@pytest.mark.parametrize(
    ("patterns", "selected"),
    [
        ([], False),
        (["public.*"], True),
        (["*.*"], True),
        (["public.orders"], True),
        (["public.Orders"], False),
        (["public.order"], False),
        (["pub*.o?ders"], True),
        (["public.[no]rders"], True),
        (["public.[!o]rders"], False),
        (["audit.*"], False),
        (["!public.orders"], False),
        (["public.*", "!public.orders"], False),
        (["!public.orders", "public.*"], True),
        (["public.*", "!public.o*", "public.orders"], True),
    ],
)
def test_the_last_pattern_that_matches_decides(patterns: list[str], selected: bool) -> None:
    assert selects(patterns, ORDERS) is selected


@pytest.mark.parametrize(
    ("pattern", "table"),
    [
        ("public.a.b", TableId("public", "a.b")),
        ("public.*", TableId("public", "a.b")),
        ('"My.Schema".*', TableId("My.Schema", "t")),
        ('public."we[ird]*"', TableId("public", "we[ird]*")),
        ('public."say ""hi"""', TableId("public", 'say "hi"')),
        ("public.order lines", TableId("public", "order lines")),
        ("public.*", TableId("public", "line\nbreak")),
        ("bücher.größe", TableId("bücher", "größe")),
    ],
)
def test_odd_names_can_be_selected(pattern: str, table: TableId) -> None:
    assert selects([pattern], table)


def test_a_quoted_part_has_no_wildcards() -> None:
    assert not selects(['public."*"'], ORDERS)


def test_a_schemas_pattern_does_not_reach_into_another_schemas_tables() -> None:
    assert not selects(["public.*"], TableId("pub", "lic.orders"))


@pytest.mark.parametrize(
    "pattern", ["", "orders", "!", "!orders", ".orders", "public.", 'public."orders', "public.[", "a]b.c"]
)
def test_a_pattern_that_cannot_be_read_is_refused_with_an_example(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"expected a pattern such as public\.\* or !public\.sessions"):
        check_pattern(pattern)


def test_unmatched_names_the_patterns_that_match_nothing() -> None:
    tables = [ORDERS, TableId("public", "sessions")]
    patterns = ["public.*", "!public.sessions", "public.ordres", "!audit.*"]
    assert unmatched(patterns, tables) == ["public.ordres", "!audit.*"]


def test_only_a_leading_exclamation_mark_excludes() -> None:
    assert excludes("!public.*")
    assert not excludes("public.!")


names = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=20)


@given(names, names, names)
def test_quoted_names_select_exactly_their_table(schema: str, name: str, other: str) -> None:
    pattern = f"{quote(schema)}.{quote(name)}"
    assert selects([pattern], TableId(schema, name))
    assert selects([pattern], TableId(schema, other)) is (name == other)
