"""Lag: the age of the oldest commit that isn't durable in the lake, and how long it takes to catch up."""

from __future__ import annotations

import pytest

from cdc.contracts import SourceHead, SourceHealth
from cdc.engine.freshness import CONFIRMED_FOR_SECONDS, DrainRate, lag_seconds

NOW = 1_700_000_000.0
SINCE = NOW - 1000


def connected(**known: float) -> SourceHealth:
    return SourceHealth(connected=True, **known)


def lag(health: SourceHealth, in_flight: float | None = None, *, since: float = SINCE) -> float:
    return lag_seconds(NOW, health, in_flight, since)


@pytest.mark.parametrize("ago", [0.0, 1.0, CONFIRMED_FOR_SECONDS])
def test_a_source_that_confirmed_lately_that_nothing_is_left_has_no_lag(ago: float) -> None:
    assert lag(connected(caught_up_at=NOW - ago)) == 0


def test_a_confirmation_that_is_too_old_counts_as_lag_since_then() -> None:
    assert lag(connected(caught_up_at=NOW - 6)) == 6


def test_a_source_that_never_confirmed_has_been_behind_since_we_began_to_look() -> None:
    assert lag(connected()) == 1000


def test_a_source_that_was_complete_under_an_earlier_stream_is_behind_since_then() -> None:
    assert lag(connected(), since=NOW - 7) == 7
    assert lag(connected(caught_up_at=NOW - 900), since=NOW - 7) == 7


def test_a_source_that_is_not_connected_is_behind_since_it_last_was_complete() -> None:
    assert lag(SourceHealth(caught_up_at=NOW - 1)) == 1
    assert lag(SourceHealth()) == 1000


def test_a_pending_commit_has_its_age_even_if_nothing_else_is_left() -> None:
    assert lag(connected(caught_up_at=NOW, oldest_pending_commit=NOW - 3)) == 3


def test_a_commit_in_flight_is_as_old_as_the_source_says_on_our_clock() -> None:
    assert lag(connected(caught_up_at=NOW), NOW - 3) == 3
    assert lag(connected(caught_up_at=NOW, clock_skew_seconds=2.0), NOW - 3) == 1
    assert lag(connected(caught_up_at=NOW, clock_skew_seconds=-2.0), NOW - 3) == 5


def test_the_oldest_of_both_counts() -> None:
    assert lag(connected(oldest_pending_commit=NOW - 3), NOW - 8) == 8
    assert lag(connected(oldest_pending_commit=NOW - 8), NOW - 3) == 8


def test_a_known_commit_counts_before_what_is_not_known_even_without_a_connection() -> None:
    assert lag(SourceHealth(oldest_pending_commit=NOW - 3)) == 3


def test_lag_is_never_negative_whatever_the_clocks_say() -> None:
    assert lag(connected(oldest_pending_commit=NOW + 5)) == 0
    assert lag(connected(), NOW + 5) == 0
    assert lag(SourceHealth(caught_up_at=NOW + 5)) == 0
    assert lag(SourceHealth(), since=NOW + 5) == 0


def head(log_bytes: int, lag_bytes: int) -> SourceHead:
    return SourceHead(log_bytes=log_bytes, lag_bytes=lag_bytes, retained_bytes=0)


def test_recovery_is_the_backlog_divided_by_the_rate_at_which_it_is_worked_off() -> None:
    drain = DrainRate()
    drain.observe(10.0, head(10_000, 8_000))
    assert drain.recovery_seconds(5.0) is None, "no rate is known yet"
    drain.observe(12.0, head(11_000, 7_000))
    assert drain.bytes_per_second == pytest.approx(1000)
    assert drain.recovery_seconds(5.0) == pytest.approx(7)


def test_without_a_lag_recovery_takes_no_time() -> None:
    assert DrainRate().recovery_seconds(0.0) == 0


def test_the_rate_is_an_average_that_recent_readings_move_slowly() -> None:
    drain = DrainRate()
    for second, acknowledged in enumerate((0, 1000, 1000)):
        drain.observe(float(second), head(10_000, 10_000 - acknowledged))
    assert drain.bytes_per_second == pytest.approx(800)


def test_an_idle_source_says_nothing_about_the_rate() -> None:
    drain = DrainRate()
    drain.observe(0.0, head(1000, 0))
    drain.observe(1.0, head(2000, 0))
    assert drain.bytes_per_second is None


def test_a_source_that_stands_still_or_goes_back_has_no_time_of_recovery() -> None:
    drain = DrainRate()
    drain.observe(0.0, head(1000, 500))
    drain.observe(0.0, head(2000, 500))
    assert drain.bytes_per_second is None, "no time has passed"
    drain.observe(1.0, head(1000, 900))
    assert drain.bytes_per_second == 0
    assert drain.recovery_seconds(5.0) is None
