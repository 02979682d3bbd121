"""Positions in a PostgreSQL log, and the identity of the server that wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import total_ordering

import orjson

from cdc.errors import DecodeError
from connectors.postgres.lsn import format_lsn, parse_lsn


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
        message = "stored position: expected a PostgreSQL position with lsn, ordinal, system and timeline"
        try:
            fields = orjson.loads(token)
            system, timeline, ordinal = fields["system"], fields["timeline"], fields["ordinal"]
            lsn = parse_lsn(fields["lsn"])
        except (ValueError, KeyError, TypeError, DecodeError) as error:
            raise DecodeError(message) from error
        if type(system) is not str or type(timeline) is not int or type(ordinal) is not int:
            raise DecodeError(message)
        return cls(system, timeline, lsn, ordinal)

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, PostgresPosition):
            return NotImplemented
        if self.system_identifier != other.system_identifier:
            raise ValueError("positions of different servers can't be compared")
        return (self.lsn, self.ordinal, self.timeline) < (other.lsn, other.ordinal, other.timeline)
