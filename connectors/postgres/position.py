"""Positions in a PostgreSQL log, and the identity of the server that wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import total_ordering

import orjson

from cdc.errors import DecodeError
from connectors.postgres.lsn import format_lsn


@total_ordering
@dataclass(frozen=True, slots=True, eq=True)
class PostgresPosition:
    """A place in one server's log.

    Attributes:
        system_identifier: made by initdb, shared by a primary and its physical standbys.
        timeline: grows with every promotion and point-in-time recovery.
        lsn: end of the transaction's commit record, in bytes from the log's start: what START_REPLICATION takes. (A
            change's own LSN is neither unique nor monotonic: transactions interleave in the log.)
        ordinal: the change's place in its transaction from 0; 0 for a whole transaction.
    """

    system_identifier: str
    timeline: int
    lsn: int
    ordinal: int = 0

    @property
    def identity(self) -> str:
        """Return system identifier and timeline."""
        return f"{self.system_identifier}/{self.timeline}"

    def token(self) -> str:
        """Return the stored form: a line of JSON with sorted keys."""
        fields = {
            "lsn": format_lsn(self.lsn),
            "ordinal": self.ordinal,
            "system": self.system_identifier,
            "timeline": self.timeline,
        }
        return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode()

    def display(self) -> str:
        """Return the LSN as Postgres prints it."""
        return format_lsn(self.lsn)

    @classmethod
    def parse(cls, token: str) -> PostgresPosition:
        """Read what ``token`` wrote.

        Raises:
            DecodeError: it isn't such a token.
        """
        try:
            fields = orjson.loads(token)
            high, low = fields["lsn"].split("/")
            lsn = int(high, 16) << 32 | int(low, 16)
            return cls(str(fields["system"]), int(fields["timeline"]), lsn, int(fields["ordinal"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = "stored position: expected a PostgreSQL position with lsn, ordinal, system and timeline"
            raise DecodeError(message) from error

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, PostgresPosition):
            return NotImplemented
        if self.system_identifier != other.system_identifier:
            raise ValueError("positions of different servers can't be compared")
        return (self.lsn, self.ordinal) < (other.lsn, other.ordinal)
