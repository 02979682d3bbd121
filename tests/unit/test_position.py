"""Positions are totally ordered in one server's log, and stored as text."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import DecodeError
from connectors.postgres.position import PostgresPosition

HERE = PostgresPosition("7300000000000000001", 2, 0x16B3748)
TOKEN = '{"lsn":"0/16B3748","ordinal":0,"system":"7300000000000000001","timeline":2}'

lsns = st.integers(0, 2**64 - 1) | st.integers(0, 3)
positions = st.builds(PostgresPosition, st.just("1"), st.integers(1, 3), lsns, st.integers(0, 3))


@given(positions, positions, positions)
def test_positions_of_one_server_are_totally_ordered(
    a: PostgresPosition, b: PostgresPosition, c: PostgresPosition
) -> None:
    assert [a < b, a == b, a > b].count(True) == 1
    assert (a <= b) == (a < b or a == b)
    assert (a >= b) == (b <= a)
    assert not (a < b and b < c) or a < c
    assert sorted([a, b, c]) == sorted([c, b, a])


@given(positions, positions)
def test_the_place_in_the_log_comes_first_in_the_order(a: PostgresPosition, b: PostgresPosition) -> None:
    if (a.lsn, a.ordinal) < (b.lsn, b.ordinal):
        assert a < b


@given(positions, positions)
def test_tokens_are_equal_exactly_for_equal_positions(a: PostgresPosition, b: PostgresPosition) -> None:
    assert (a.token() == b.token()) == (a == b)
    assert PostgresPosition.parse(a.token()) == a
    assert "\n" not in a.token()


def test_token_is_json_with_sorted_keys() -> None:
    assert HERE.token() == TOKEN
    assert list(orjson.loads(TOKEN)) == sorted(orjson.loads(TOKEN))


def test_display_is_what_postgres_prints() -> None:
    assert HERE.display() == "0/16B3748"


def test_identity_is_the_servers_and_its_historys() -> None:
    assert HERE.identity == "7300000000000000001/2"
    assert PostgresPosition("7300000000000000001", 3, 5).identity != HERE.identity


@pytest.mark.parametrize("compare", ["__lt__", "__le__", "__gt__", "__ge__"])
def test_positions_of_different_servers_cannot_be_compared(compare: str) -> None:
    with pytest.raises(ValueError, match="different servers"):
        getattr(HERE, compare)(PostgresPosition("2", 2, HERE.lsn))


def test_a_position_cannot_be_compared_with_anything_else() -> None:
    with pytest.raises(TypeError):
        _ = HERE < 5  # type: ignore[operator]
    assert HERE != 5


BAD = {
    "no text": "",
    "no JSON": "0/16B3748",
    "no object": "[1,2]",
    "a number": "7",
    "nothing in it": "{}",
} | {
    f"{field} {value!r}": orjson.dumps({**orjson.loads(TOKEN), field: value}).decode()
    for field, value in [
        ("lsn", None),
        ("lsn", 5),
        ("lsn", "5"),
        ("lsn", "0/"),
        ("lsn", "-1/0"),
        ("lsn", "0x1/0"),
        ("lsn", "1_0/0"),
        ("lsn", "0/123456789"),
        ("timeline", None),
        ("timeline", "x"),
        ("timeline", 1.5),
        ("timeline", True),
        ("ordinal", []),
        ("ordinal", "0"),
        ("system", None),
        ("system", 5),
    ]
}


@pytest.mark.parametrize("token", BAD.values(), ids=BAD)
def test_a_token_that_is_none_is_refused(token: str) -> None:
    with pytest.raises(DecodeError, match=r"^stored position: expected a PostgreSQL position"):
        PostgresPosition.parse(token)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.dictionaries(st.sampled_from(["lsn", "ordinal", "system", "timeline"]), inner),
    )
)
def test_whatever_is_read_as_a_token_only_a_decode_error_is_raised(value: object) -> None:
    with pytest.raises(DecodeError):
        PostgresPosition.parse(orjson.dumps(value).decode())


def test_a_number_beyond_all_numbers_is_refused() -> None:
    with pytest.raises(DecodeError):
        PostgresPosition.parse(TOKEN.replace('"timeline":2', '"timeline":1e999'))
