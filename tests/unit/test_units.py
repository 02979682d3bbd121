from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("15m", 900.0),
        ("1h30m", 5400.0),
        ("250ms", 0.25),
        ("1m500ms", 60.5),
        ("1.5s", 1.5),
        ("2d", 172_800.0),
        ("1w", 604_800.0),
        ("0s", 0.0),
    ],
)
def test_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "s", "30 s", "-30s", "30m1h", "1s1s", "1.5h", "30S", "1e3s", "٣s", "9" * 12 + "s", "1:30"]
)
def test_anything_else_than_a_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as 30s"):
        parse_duration(text)


@given(st.integers(0, 10**12))
def test_durations_survive_being_written_and_read(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("10GiB", 10 * 2**30), ("1.5MiB", 3 * 2**19), ("1kB", 1000), ("2 TB", 2 * 10**12), ("0B", 0), ("512b", 512)],
)
def test_size_is_read_in_bytes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "10", "10G", "-1GiB", "GiB", "1e3B", "10 gibibytes", "10GiB "])
def test_anything_else_than_a_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size such as 10GiB"):
        parse_size(text)


@given(st.integers(0, 2**59))
def test_sizes_survive_being_written_and_read(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


def test_sizes_are_written_with_the_largest_exact_unit() -> None:
    assert [format_size(n) for n in (0, 1, 1024, 1536, 10 * 2**30)] == ["0B", "1B", "1KiB", "1536B", "10GiB"]


def test_durations_are_written_without_empty_parts() -> None:
    assert [format_duration(s) for s in (0, 0.25, 30, 90, 3600, 90061)] == [
        "0s",
        "250ms",
        "30s",
        "1m30s",
        "1h",
        "1d1h1m1s",
    ]
