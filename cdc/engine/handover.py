"""The hand-over between a source's thread and its apply thread: room for one group, so that memory is bounded."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Condition

from cdc.group import CommitGroup


class Handover:
    """An ``Outlet`` with one place.

    While one group is being applied, the next waits in the place and the source gathers the one after: groups grow as
    long as the lake is busy, and are single transactions when it is idle.

    Args:
        on_room: called when the place has become free.
    """

    def __init__(self, on_room: Callable[[], None]) -> None:
        self._on_room = on_room
        self._changed = Condition()
        self._place: CommitGroup | None = None
        self._applying: CommitGroup | None = None
        self._waiting = False

    def wanted(self) -> bool:
        """Return whether the apply thread waits for work."""
        return self._waiting and self._place is None

    def offer(self, group: CommitGroup, timeout_seconds: float) -> bool:
        """Put ``group`` into the place, waiting for it to be free at most this long."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._place is None, timeout_seconds):
                return False
            self._place = group
            self._changed.notify_all()
            return True

    def take(self, timeout_seconds: float) -> CommitGroup | None:
        """Return the next group, or None if none came in time. It counts as being applied until ``done``."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            self._waiting = self._place is None
            if self._waiting:
                self._on_room()
            while self._place is None:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())) and self._place is None:
                    self._waiting = False
                    return None
            self._waiting = False
            self._applying, self._place = self._place, None
            self._changed.notify_all()
        self._on_room()
        return self._applying

    def done(self) -> None:
        """Say that the group taken last is durable, or given up."""
        group, self._applying = self._applying, None
        if group is not None:
            group.release()

    def clear(self) -> None:
        """Give up what waits here."""
        self.done()
        with self._changed:
            group, self._place = self._place, None
            self._changed.notify_all()
        if group is not None:
            group.release()

    @property
    def oldest_commit(self) -> float | None:
        """Commit time (UNIX seconds, the source's clock) of the oldest transaction here; None without one."""
        for group in (self._applying, self._place):
            if group is not None and len(group.transactions):
                return float(group.transactions.commit_times_us[0]) / 1e6
        return None

    @property
    def size_bytes(self) -> int:
        """Bytes of the groups here."""
        return sum(group.size_bytes for group in (self._applying, self._place) if group is not None)
