"""What a running engine says of itself: one snapshot, read by /metrics, /api/status, ``cdc status`` and the demo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from cdc.contracts import TableState


class SourceState(StrEnum):
    """What a source is doing."""

    STARTING = "starting"
    STREAMING = "streaming"
    RETRYING = "retrying"
    """Something was unavailable; the engine tries again by itself."""
    FAILED = "failed"
    """A person must act."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableStatus:
    """One table.

    Attributes:
        changes: applied since this process started, by op letter (c, u, d, r, t).
        copied_rows: rows of its initial copy so far; 0 if this process copied none.
    """

    table: str
    target: str
    state: TableState
    reason: str = ""
    changes: Mapping[str, int] = field(default_factory=dict)
    copied_rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """One source. Times are UNIX seconds; None where it isn't known.

    Attributes:
        error: what stands in the way, and ``hint`` what to do; empty while all is well.
        lag_seconds: age of the oldest source commit that isn't durable in the lake; 0 without one.
        budget_remaining_ratio: share of the objective's error budget left in its window, 1 to 0.
        recovery_estimate_seconds: backlog divided by the measured rate; None while no rate is known.
        retained_bytes: log that the source keeps for us.
        retain_bytes: how much it should keep at the most; None without a bound.
    """

    name: str
    type: str
    state: SourceState
    error: str = ""
    hint: str = ""
    position: str | None = None
    committed_at: float | None = None
    lag_seconds: float = 0.0
    rpo_seconds: float | None = None
    rto_seconds: float | None = None
    rpo_breach_seconds_total: float = 0.0
    budget_remaining_ratio: float = 1.0
    recovery_estimate_seconds: float | None = None
    retained_bytes: int | None = None
    retain_bytes: int | None = None
    buffered_bytes: int = 0
    spilled_bytes: int = 0
    transactions_total: int = 0
    tables: Sequence[TableStatus] = ()

    @property
    def within_rpo(self) -> bool:
        """Return whether the lag is within the objective, or there is none."""
        return self.rpo_seconds is None or self.lag_seconds <= self.rpo_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """The whole process."""

    environment: str
    version: str
    pid: int
    started_at: float
    sources: Sequence[SourceStatus] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values: the documented JSON of ``/api/status`` and ``cdc status --json``."""
        return asdict(self)
