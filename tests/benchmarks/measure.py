"""What a run costs: wall time, and the CPU time and memory of processes, read from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return user and system time that a process has used, all its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def peak_rss_mib(pid: int) -> float:
    """Return the most memory that a process has had resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def until(ready: Callable[[], bool], *, timeout_seconds: float, every_seconds: float = 0.005) -> None:
    """Poll until ``ready`` says yes.

    Raises:
        TimeoutError: it never did.
    """
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not ready after {timeout_seconds:.0f} s")
        time.sleep(every_seconds)


def has_row(connection: psycopg.Connection, table: str, key: int) -> bool:
    """Return whether a table has the row with this id."""
    return connection.execute(f"SELECT 1 FROM {table} WHERE id = %s", (key,)).fetchone() is not None
