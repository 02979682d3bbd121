"""Encoder of row messages, for tests only: the other direction of ``connectors.postgres.pgoutput``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import pack

from cdc.change import OldImage, Op, Presence

Cell = str | None | Presence

XLOG_HEADER = b"w" + bytes(range(128, 152))
"""25 bytes as before a message in an XLogData frame; none of them ASCII, all of them different."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row message: ``old`` where ``old_image`` isn't NONE, ``new`` where ``op`` isn't DELETE."""

    op: Op
    old_image: OldImage = OldImage.NONE
    old: Sequence[Cell] = ()
    new: Sequence[Cell] = ()

    def encode(self, *, relation_oid: int = 16384, xid: int | None = None) -> bytes:
        """Return the message; ``xid`` for one in a stream."""
        kind = {Op.INSERT: b"I", Op.UPDATE: b"U", Op.DELETE: b"D"}[self.op]
        head = kind + (b"" if xid is None else pack("!I", xid)) + pack("!I", relation_oid)
        old = b"" if self.old_image is OldImage.NONE else pack("!B", self.old_image) + encode_tuple(self.old)
        return head + old + (b"" if self.op is Op.DELETE else b"N" + encode_tuple(self.new))


def encode_tuple(cells: Sequence[Cell]) -> bytes:
    """Return TupleData."""
    return pack("!H", len(cells)) + b"".join(map(_encode_cell, cells))


def _encode_cell(cell: Cell) -> bytes:
    if cell is None:
        return b"n"
    if isinstance(cell, str):
        value = cell.encode()
        return b"t" + pack("!I", len(value)) + value
    return b"u"
