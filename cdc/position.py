"""Where in a source's log a change stands.

A position is totally ordered within its source and carries the identity of the server that gave it. The kernel compares
and stores positions; only the connector that made one reads its inside.
"""

from __future__ import annotations

from typing import Any, Protocol


class Position(Protocol):
    """A place in one source's log.

    Positions of one server are totally ordered. Comparing those of different servers raises ``ValueError``: their
    numbers say nothing about each other.
    """

    @property
    def identity(self) -> str:
        """The server's identity, equal only for the same server on the same history."""
        ...

    def token(self) -> str:
        """Return the stored form: one line of JSON with sorted keys, equal for equal positions."""
        ...

    def display(self) -> str:
        """Return the form that the source's own tools print, as in ``0/16B3748``."""
        ...

    def __lt__(self, other: Any, /) -> bool: ...

    def __le__(self, other: Any, /) -> bool: ...
