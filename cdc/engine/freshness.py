"""Lag and recovery of one source, from what its parts know. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from cdc.contracts import SourceHead, SourceHealth

CONFIRMED_FOR_SECONDS = 5.0
"""How long a source that said it had nothing left to send is taken at its word; it is asked every second or two."""

DRAIN_MEMORY = 0.8
"""Weight of the past in the measured drain rate, per reading."""


def lag_seconds(now: float, health: SourceHealth, in_flight_commit: float | None, since: float) -> float:
    """Return the age of the oldest source commit that isn't durable in the lake; 0 without one.

    What hasn't reached us has no known age: then it is the time since the source last confirmed that nothing was left.

    Args:
        now: UNIX seconds, our clock.
        health: the source's.
        in_flight_commit: commit time of the oldest transaction between source and lake, by the source's clock.
        since: until when the lake was complete as far as an earlier stream knew, or when we began to look; UNIX
            seconds.
    """
    oldest = health.oldest_pending_commit
    if in_flight_commit is not None:
        in_flight = in_flight_commit + health.clock_skew_seconds
        oldest = in_flight if oldest is None else min(oldest, in_flight)
    if oldest is not None:
        return max(0.0, now - oldest)
    quiet = max(0.0, now - max(health.caught_up_at, since))
    return quiet if not health.connected or quiet > CONFIRMED_FOR_SECONDS else 0.0


@dataclass(slots=True)
class DrainRate:
    """How fast a backlog shrinks, measured while there is one.

    Attributes:
        bytes_per_second: of the source's log; None until measured.
    """

    bytes_per_second: float | None = None
    _last: tuple[float, int] | None = field(default=None)
    _lag_bytes: int = 0

    def observe(self, now: float, head: SourceHead) -> None:
        """Take in a reading at ``now`` (monotonic seconds)."""
        acknowledged = head.log_bytes - head.lag_bytes
        if self._last is not None and self._lag_bytes > 0 and now > self._last[0]:
            rate = max(0, acknowledged - self._last[1]) / (now - self._last[0])
            known = self.bytes_per_second
            self.bytes_per_second = rate if known is None else DRAIN_MEMORY * known + (1 - DRAIN_MEMORY) * rate
        self._last, self._lag_bytes = (now, acknowledged), head.lag_bytes

    def recovery_seconds(self, lag: float) -> float | None:
        """Return backlog divided by rate: 0 without a lag, None while no rate is known."""
        if lag == 0.0:
            return 0.0
        return self._lag_bytes / self.bytes_per_second if self.bytes_per_second else None
