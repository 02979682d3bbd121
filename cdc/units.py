"""Durations and sizes as a configuration file writes them, and back.

Durations are seconds (float), sizes are bytes (int). Both directions are exact for whole milliseconds and bytes:
``parse_duration(format_duration(x)) == x``. A bare number has no unit and is refused, except 0.
"""

from __future__ import annotations

import re
from decimal import Decimal

DURATION_PATTERN = (
    r"(?=.)([0-9]{1,9}w)?([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}(\.[0-9]{1,3})?s)?([0-9]{1,9}ms)?"
)
SIZE_PATTERN = r"[0-9]{1,18}(\.[0-9]{1,3})? ?([KkMmGgTtPp][Ii]?)?[Bb]"

_DURATION_UNITS_MS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_PART = re.compile(r"([0-9.]+)(ms|[wdhms])")
_SIZE = re.compile(r"([0-9.]+) ?([kmgtp]?)(i?)b")
_BINARY_UNITS = ("PiB", "TiB", "GiB", "MiB", "KiB")


def parse_duration(text: str) -> float:
    """Read ``30s``, ``1h30m``, ``1.5s`` or ``250ms``, largest unit first.

    Returns:
        seconds.

    Raises:
        ValueError: it isn't a duration; the text says what was expected.
    """
    if not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError("expected a duration such as 30s")
    return sum(float(number) * _DURATION_UNITS_MS[unit] for number, unit in _PART.findall(text)) / 1000


def format_duration(seconds: float) -> str:
    """Return the shortest text that ``parse_duration`` reads back as ``seconds``, to the millisecond."""
    left = round(seconds * 1000)
    parts = []
    for unit, size in _DURATION_UNITS_MS.items():
        if unit != "w" and left >= size:
            count, left = divmod(left, size)
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(text: str) -> int:
    """Read ``10GiB``, ``1.5MB`` or ``512B``; ``i`` means powers of 1024, and case doesn't matter.

    Returns:
        bytes.

    Raises:
        ValueError: it isn't a size; the text says what was expected.
    """
    match = _SIZE.fullmatch(text.lower()) if re.fullmatch(SIZE_PATTERN, text) else None
    if match is None:
        raise ValueError("expected a size such as 10GiB")
    number, prefix, binary = match.groups()
    multiplier: int = (1024 if binary else 1000) ** " kmgtp".index(prefix or " ")
    return round(Decimal(number) * multiplier)


def format_size(size_bytes: int) -> str:
    """Return the shortest text that ``parse_size`` reads back as ``size_bytes``."""
    for power, unit in zip(range(5, 0, -1), _BINARY_UNITS, strict=True):
        if size_bytes and size_bytes % 1024**power == 0:
            return f"{size_bytes // 1024**power}{unit}"
    return f"{size_bytes}B"
