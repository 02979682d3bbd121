"""What the demo shows while it runs: a live table on a terminal, plain lines elsewhere, nothing with ``--json``."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_EVENT_COUNT = 9
_LINE_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One moment.

    Attributes:
        rows: per table (rows at the source, rows in the lake); None where the lake has no such table yet.
        lag_seconds: as the engine says; None while it doesn't answer.
        budget_remaining_ratio: share of the objective's error budget that is left.
    """

    elapsed_seconds: float
    phase: str
    rows: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    changes: int = 0
    changes_per_second: float = 0.0
    lag_seconds: float | None = None
    rpo_seconds: float = 0.0
    budget_remaining_ratio: float | None = None


class View(Protocol):
    """Somewhere to show frames and events."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def show(self, frame: Frame) -> None:
        """Show a moment; called several times a second."""
        ...

    def say(self, text: str) -> None:
        """Report an event."""
        ...


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def show(self, frame: Frame) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Say nothing."""


class Lines(Silent):
    """Prints events, and a line every other second."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._next = 0.0

    def show(self, frame: Frame) -> None:
        """Print a line when the last one is old enough."""
        if frame.elapsed_seconds >= self._next:
            self._next = frame.elapsed_seconds + _LINE_SECONDS
            source = sum(rows for rows, _ in frame.rows.values())
            lake = sum(rows or 0 for _, rows in frame.rows.values())
            self._print(
                f"rows {source:,} at the source, {lake:,} in the lake; {frame.changes_per_second:,.0f} changes/s; "
                f"lag {_seconds(frame.lag_seconds)} of {frame.rpo_seconds:.0f} s; {frame.phase}"
            )

    def say(self, text: str) -> None:
        """Print the event."""
        self._print(text)

    def _print(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {text}", flush=True)  # noqa: T201


class Terminal:
    """A table that is drawn anew in place, with the last events below."""

    def __init__(self) -> None:
        self._events: deque[tuple[float, str]] = deque(maxlen=_EVENT_COUNT)
        self._began = time.monotonic()
        self._frame = Frame(elapsed_seconds=0, phase="starting")
        self._live = Live(console=Console(), auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def show(self, frame: Frame) -> None:
        """Draw."""
        self._frame = frame
        self._live.update(render(frame, self._events), refresh=True)

    def say(self, text: str) -> None:
        """Add an event to those below the table."""
        self._events.append((time.monotonic() - self._began, text))
        self.show(self._frame)


def choose(*, as_json: bool) -> View:
    """Return the view that fits where our output goes."""
    if as_json:
        return Silent()
    return Terminal() if sys.stdout.isatty() else Lines()


def render(frame: Frame, events: Sequence[tuple[float, str]] | deque[tuple[float, str]]) -> Panel:
    """Return a frame as it is drawn. Pure."""
    table = Table(expand=True, box=None, padding=(0, 2))
    table.add_column("table")
    for heading in ("source rows", "lake rows", "behind"):
        table.add_column(heading, justify="right")
    for name, (source, lake) in frame.rows.items():
        behind = "" if lake == source else "not yet there" if lake is None else f"{abs(source - lake):,}"
        table.add_row(name, f"{source:,}", "-" if lake is None else f"{lake:,}", Text(behind, style="yellow"))
    said = [Text(f"{at:6.1f} s  {text}", style="dim", no_wrap=True, overflow="ellipsis") for at, text in events]
    return Panel(
        Group(table, Text(), _objective(frame), Text(), *said),
        title=f"cdc demo · {frame.elapsed_seconds:.0f} s · {frame.phase}",
        subtitle="Ctrl-C stops everything and cleans up",
    )


def _objective(frame: Frame) -> Text:
    """Return the line of figures."""
    within = frame.lag_seconds is not None and frame.lag_seconds <= frame.rpo_seconds
    style = "bold green" if within else "bold red"
    text = Text.assemble(
        f"{frame.changes:,} changes, {frame.changes_per_second:,.0f}/s    lag ",
        (_seconds(frame.lag_seconds), style),
        f" of RPO {frame.rpo_seconds:.0f} s",
    )
    if frame.budget_remaining_ratio is not None:
        text.append(f"    error budget left {frame.budget_remaining_ratio:.1%}")
    return text


def _seconds(value: float | None) -> str:
    if value is None:
        return "unknown (no engine)"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
