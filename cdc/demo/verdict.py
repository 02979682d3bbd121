"""How a demo ends: what was compared, what was found, in words and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cdc.demo.compare import Comparison
from cdc.demo.enrich import Survival

EXIT_IDENTICAL = 0
EXIT_DIFFERENT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome.

    Attributes:
        caught_up: whether the last heartbeat arrived before the deadline.
        changes: rows that the traffic inserted, updated and deleted.
        kills: how often the engine was killed with SIGKILL.
        lag_p50_seconds: commit to visible, crashes included; None if nothing was measured.
    """

    seconds: float
    caught_up: bool
    tables: Sequence[Comparison]
    changes: int
    kills: int
    survival: Survival
    lag_p50_seconds: float | None
    lag_p99_seconds: float | None

    @property
    def identical(self) -> bool:
        """Whether every table is."""
        return bool(self.tables) and all(table.identical for table in self.tables)

    @property
    def exit_code(self) -> int:
        """0 if all is as it should be, 4 if anything differs."""
        good = self.identical and self.caught_up and self.survival.complete
        return EXIT_IDENTICAL if good else EXIT_DIFFERENT

    def to_json(self) -> dict[str, Any]:
        """Return the documented JSON of ``cdc demo --json``."""
        return {
            "verdict": "identical" if self.identical else "different",
            "seconds": round(self.seconds, 3),
            "caught_up": self.caught_up,
            "tables": [
                {"name": ".".join(table.pair.source), "rows": table.source_rows, "identical": table.identical}
                for table in self.tables
            ],
            "rows": sum(table.source_rows for table in self.tables),
            "changes": self.changes,
            "kills": self.kills,
            "enrichment_survived": self.survival.complete,
            "lag": {"p50_seconds": _rounded(self.lag_p50_seconds), "p99_seconds": _rounded(self.lag_p99_seconds)},
        }

    def lines(self) -> Iterator[str]:
        """Yield the outcome in words."""
        yield "Every table, compared row by row by plain SQL on both sides:"
        for table in self.tables:
            yield f"  {'✓' if table.identical else '✗'} {table}"
        survival = self.survival
        yield (
            f"  {'✓' if survival.complete else '✗'} the lake's own column, index and view: "
            f"{survival.rows - survival.lost:,} of {survival.rows:,} enriched rows survived"
        )
        if not self.caught_up:
            yield "  ✗ the engine hadn't caught up when the time for it was over"
        yield f"{self.changes:,} changes in {self.seconds:.0f} s; the engine was killed by SIGKILL {self.kills} times."
        if self.lag_p50_seconds is not None and self.lag_p99_seconds is not None:
            yield (
                f"Commit at the source to visible in the lake: p50 {self.lag_p50_seconds * 1000:.1f} ms, "
                f"p99 {self.lag_p99_seconds * 1000:.0f} ms, the time without an engine included."
            )
        yield f"Verdict: {'identical' if self.exit_code == EXIT_IDENTICAL else 'NOT as it should be'}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
