from __future__ import annotations

import pickle
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.objectives import RpoBudget


def observed(lags: Sequence[float], *, step: float = 1.0, rpo: float | None = 10.0, start: float = 1e9) -> RpoBudget:
    budget = RpoBudget(rpo)
    for i, lag in enumerate(lags):
        budget.observe(start + i * step, lag)
    return budget


def test_a_lag_within_the_objective_spends_nothing() -> None:
    budget = observed([0, 5, 10.0] * 100)
    assert (budget.breach_seconds_total, budget.remaining_ratio(), budget.burn_rate()) == (0, 1, 0)


def test_without_an_objective_nothing_is_spent() -> None:
    budget = observed([1e6] * 100, rpo=None)
    assert (budget.breach_seconds_total, budget.remaining_ratio(), budget.burn_rate()) == (0, 1, 0)


def test_an_objective_of_zero_is_an_objective() -> None:
    assert observed([0, 0.5, 1.5], rpo=0.0).breach_seconds_total == pytest.approx(1.5)


def test_half_of_the_budget_is_left_after_half_of_it_was_spent() -> None:
    budget = observed([0, *range(1, 29), 0])  # 1 % of an hour is 36 s; a stall of 28 s is 18 s beyond 10 s
    assert budget.breach_seconds_total == pytest.approx(18)
    assert budget.remaining_ratio() == pytest.approx(0.5)


def test_the_budget_is_never_less_than_nothing() -> None:
    assert observed([60.0] * 1000).remaining_ratio() == 0


def test_a_breach_begins_when_the_lag_passes_the_objective_between_two_observations() -> None:
    assert observed([0, 12], step=60).breach_seconds_total == pytest.approx(2)


def test_the_first_observation_spends_nothing() -> None:
    assert observed([1e6]).breach_seconds_total == 0


def test_a_breach_leaves_the_window_after_its_length() -> None:
    budget = observed([0, *range(1, 29), 0])
    budget.observe(1e9 + 3700, 0)
    assert budget.remaining_ratio() == 1
    assert budget.breach_seconds_total == pytest.approx(18)


def test_a_breach_of_one_whole_window_counts_once_in_it() -> None:
    budget = observed([20, 30], step=100_000)
    assert budget.breach_seconds_total == pytest.approx(100_000)
    assert budget.burn_rate() == pytest.approx(100, rel=0.01)


def test_burning_exactly_the_budget_is_a_rate_of_one() -> None:
    budget = RpoBudget(10, window_seconds=1000, objective=0.9)
    for second in range(1001):
        budget.observe(second, 11 if second % 10 == 0 else 0)
    assert budget.burn_rate() == pytest.approx(1, rel=0.02)
    assert budget.remaining_ratio() == pytest.approx(0, abs=0.02)


def test_a_clock_that_goes_backwards_spends_nothing() -> None:
    budget = observed([20, 20], step=-5)
    assert budget.breach_seconds_total == 0
    budget.observe(1e9 - 4, 20)
    assert budget.breach_seconds_total == pytest.approx(1)


def test_an_objective_without_a_budget_is_used_up_by_the_first_breach() -> None:
    budget = RpoBudget(1, objective=1)
    assert budget.remaining_ratio() == 1
    budget.observe(0, 0)
    budget.observe(1, 5)
    assert (budget.remaining_ratio(), budget.burn_rate()) == (0, float("inf"))


@pytest.mark.parametrize(("window", "objective"), [(0, 0.9), (-1, 0.9), (10, 0), (10, 1.1)])
def test_a_senseless_objective_is_refused(window: float, objective: float) -> None:
    with pytest.raises(ValueError, match="expected a window above 0"):
        RpoBudget(1, window, objective)


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 100)), max_size=300))
def test_the_figures_stay_in_their_bounds(steps: list[tuple[float, float]]) -> None:
    budget, now, before = RpoBudget(10, 600), 1e9, 0.0
    for elapsed, lag in steps:
        now += elapsed
        budget.observe(now, lag)
        assert 0 <= budget.remaining_ratio() <= 1
        assert before <= budget.breach_seconds_total <= now - 1e9 + 1e-3
        assert 0 <= budget.burn_rate() <= 100 * 1.02 + 1e-3
        before = budget.breach_seconds_total


def test_its_memory_does_not_grow_with_time() -> None:
    budget = observed([20] * 5000)
    size = len(pickle.dumps(budget))
    for second in range(5000, 20_000):
        budget.observe(1e9 + second, 20)
    assert len(pickle.dumps(budget)) == pytest.approx(size, rel=0.1)
