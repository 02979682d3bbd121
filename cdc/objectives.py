"""How much of a recovery point objective's error budget is left. Pure: the caller brings the clock.

The objective: in any window, the lag is within the RPO for ``objective`` of the time. The rest of the window is the
budget; time beyond the RPO spends it, and comes back when it leaves the window.
"""

from __future__ import annotations

from collections import deque

_BUCKETS = 120
"""The window slides in steps of one bucket; so many keep the error under 1 % at a bounded memory."""


class RpoBudget:
    """The time that one source spent beyond its RPO. Not thread-safe.

    Args:
        rpo_seconds: the objective; None means that there is none, and nothing is ever spent.
        window_seconds: length of the rolling window.
        objective: share of the window, 0 (excluded) to 1, to be spent within the RPO.
    """

    def __init__(self, rpo_seconds: float | None, window_seconds: float = 3600, objective: float = 0.99) -> None:
        if not window_seconds > 0 or not 0 < objective <= 1:
            raise ValueError(f"expected a window above 0 and an objective in (0, 1], got {window_seconds}, {objective}")
        self._rpo_seconds = rpo_seconds
        self._window_seconds = window_seconds
        self._budget_ratio = 1 - objective
        self._bucket_seconds = window_seconds / _BUCKETS
        self._buckets: deque[tuple[int, float]] = deque()
        self._first: float | None = None
        self._last = 0.0
        self._was_breached = False
        self._breach_seconds_total = 0.0

    @property
    def breach_seconds_total(self) -> float:
        """All seconds spent beyond the RPO; only grows."""
        return self._breach_seconds_total

    def observe(self, now: float, lag_seconds: float) -> None:
        """Take note of the lag at ``now`` (seconds of any clock; going backwards counts as no time).

        The time since the previous observation counts as the lag at its end says. Where a breach begins, only what lies
        beyond the RPO counts, as a lag grows no faster than the clock.
        """
        if self._rpo_seconds is None:
            return
        elapsed = 0.0 if self._first is None else max(0.0, now - self._last)
        self._first = now if self._first is None else min(self._first, now)
        self._last = now
        beyond = lag_seconds - self._rpo_seconds
        spent = 0.0 if beyond <= 0 else elapsed if self._was_breached else min(elapsed, beyond)
        self._was_breached = beyond > 0
        self._spend(now, spent)

    def remaining_ratio(self) -> float:
        """Return the share of the budget that is left at the last observation, 1 to 0."""
        budget_seconds = self._window_seconds * self._budget_ratio
        spent = self._spent_in_window()
        if spent <= 0:
            return 1.0
        return max(0.0, 1 - spent / budget_seconds) if budget_seconds else 0.0

    def burn_rate(self) -> float:
        """Return how fast the budget is being spent: 1 spends exactly all of it in every window; 0 nothing.

        Measured over what was observed of the window.
        """
        observed = 0.0 if self._first is None else min(self._window_seconds, self._last - self._first)
        spent = self._spent_in_window()
        if spent <= 0 or observed <= 0:
            return 0.0
        return spent / observed / self._budget_ratio if self._budget_ratio else float("inf")

    def _spend(self, now: float, seconds: float) -> None:
        self._breach_seconds_total += seconds
        end, start = now, max(now - seconds, now - self._window_seconds)
        while start < end:
            bucket = int(start // self._bucket_seconds)
            until = min(end, max((bucket + 1) * self._bucket_seconds, start + self._bucket_seconds / 1000))
            if self._buckets and self._buckets[-1][0] == bucket:
                self._buckets[-1] = (bucket, self._buckets[-1][1] + until - start)
            else:
                self._buckets.append((bucket, until - start))
            start = until
        oldest = int((now - self._window_seconds) // self._bucket_seconds)
        while self._buckets and (self._buckets[0][0] <= oldest or len(self._buckets) > _BUCKETS + 1):
            self._buckets.popleft()

    def _spent_in_window(self) -> float:
        return sum(seconds for _, seconds in self._buckets)
