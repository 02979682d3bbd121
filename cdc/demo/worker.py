"""A part of the demo that works in a thread of its own until it is stopped."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod


class Worker(ABC):
    """Runs ``work`` once, in a daemon thread.

    Attributes:
        error: what ended ``work`` too early; None while all is well.
    """

    def __init__(self, name: str) -> None:
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def work(self) -> None:
        """Do the work; return soon after ``self._stop`` is set."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def check(self) -> None:
        """Raise what went wrong, if anything did."""
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Finish what is at hand and end; raise what went wrong, if anything did."""
        self._stop.set()
        self._thread.join()
        self.check()

    def _run(self) -> None:
        try:
            self.work()
        except BaseException as error:  # noqa: BLE001 - raised again by whoever checks or stops us
            self.error = error
