"""Column-parallel reading of a run of row messages: what ``rows`` does for large runs.

The messages are joined into one buffer. For each column in turn the cells of *all* rows are found at once, each row's
cell starting where its cell before ended; their bytes are never touched by Python. Then Arrow copies each column's
values out of the buffer. Every offset is checked against its own message's end before it is used, so corrupt bytes
end in ``DecodeError``; nothing is ever read outside of the buffer.

The layouts are in ``connectors.postgres.messages`` (Insert, Update, Delete, TupleData).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import pyarrow as pa

from cdc.change import Bytes1D, Index1D, Mask1D, OldImage, Op
from cdc.errors import DecodeError

RUN_BYTES_MAX = 2**31 - 16
"""The most bytes of one run: Arrow's string arrays count theirs in 32 bits, signed."""

# Reads at the end of the last message may run this far beyond it before the offsets they lead to are checked.
_PADDING = bytes(8)

_INSERT, _UPDATE, _DELETE, _NEW, _KEY, _ROW, _TEXT, _NULL, _UNCHANGED = b"IUDNKOtnu"


def _lookup(values: dict[int, int]) -> Bytes1D:
    table = np.zeros(256, np.uint8)
    for byte, value in values.items():
        table[byte] = value
    return table


_OPS = _lookup({_INSERT: Op.INSERT, _UPDATE: Op.UPDATE, _DELETE: Op.DELETE})
_OLD_IMAGES = _lookup({_KEY: OldImage.KEY, _ROW: OldImage.ROW})


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """One column of n rows: where each value lies in the buffer.

    Attributes:
        kinds: n x uint8, ``t``, ``n`` or ``u``; ``n`` for rows that have no such tuple.
        starts: n x int64, the value's first byte; meaningful for ``t`` only, as ``stops`` is.
        stops: n x int64, the byte after the value.
    """

    kinds: Bytes1D
    starts: Index1D
    stops: Index1D

    @property
    def is_text(self) -> Mask1D:
        """Where there is a value."""
        return np.equal(self.kinds, _TEXT)

    @property
    def is_unchanged(self) -> Mask1D:
        """Where the value isn't repeated."""
        return np.equal(self.kinds, _UNCHANGED)

    def spread(self, rows: Index1D, message_stops: Index1D) -> Cells:
        """Return cells for all n rows, of which ``rows`` have these; the others' are empty and end their message.

        (So offsets grow from row to row, which Arrow asks of the first and the last.)
        """
        if len(rows) == len(message_stops):
            return self
        kinds = np.full(len(message_stops), _NULL, np.uint8)
        starts, stops = message_stops.copy(), message_stops.copy()
        kinds[rows], starts[rows], stops[rows] = self.kinds, self.starts, self.stops
        return Cells(kinds, starts, stops)

    def filled(self, other: Cells, rows: Mask1D) -> Cells:
        """Return these cells with those of ``other`` in ``rows``."""
        return Cells(
            np.where(rows, other.kinds, self.kinds),
            np.where(rows, other.starts, self.starts),
            np.where(rows, other.stops, self.stops),
        )


class Run:
    """The messages of a run of n rows, joined, and where each begins and ends.

    Attributes:
        starts: n x int64, offset of each message in the buffer.
        stops: n x int64, offset behind each message.
    """

    __slots__ = ("_buffer", "_even", "_octets", "_shorts", "_words", "starts", "stops")

    def __init__(self, messages: Sequence[bytes]) -> None:
        lengths = np.fromiter(map(len, messages), np.int64, len(messages))
        self.stops = np.cumsum(lengths)
        check_size(int(self.stops[-1]))
        joined = b"".join((*messages, _PADDING))
        self.starts = self.stops - lengths
        self._buffer = pa.py_buffer(joined)
        self._octets = np.frombuffer(joined, np.uint8)
        # Overlapping views: element i is the big-endian number at byte i, so one gather reads it whole.
        self._shorts = np.ndarray((len(joined) - 1,), ">u2", joined, strides=(1,))
        self._words = np.ndarray((len(joined) - 3,), ">u4", joined, strides=(1,))
        self._even = np.arange(0, 2 * len(messages), 2)

    def octets(self, at: Index1D) -> Bytes1D:
        """Return the byte at each offset."""
        return self._octets[at]

    def refuse(self, bad: Mask1D, rows: Index1D, at: Index1D, expected: str, got: str = "") -> NoReturn:
        """Raise the error for the first bad row.

        Args:
            bad: m x bool, at least one true.
            rows: m x int64, the row of the run that each element of ``bad`` and ``at`` is about.
            at: m x int64, offsets in the buffer.
            expected: subject and expectation, as in ``old row: expected a cell``.
            got: what was there; empty for the byte at ``at``.
        """
        first = int(np.argmax(bad))
        row, place = int(rows[first]), int(at[first])
        got = got or f"0x{int(self._octets[place]):02x}"
        raise DecodeError(f"{expected}, got {got} at offset {place - int(self.starts[row])} of row {row}")

    def tuples(self, rows: Index1D, at: Index1D, column_count: int, *, old: bool) -> tuple[list[Cells], Index1D]:
        """Read one tuple of each row.

        Args:
            rows: m x int64, which rows.
            at: m x int64, offset of each tuple's column count; at most the end of its message.
            column_count: how many columns each must have.
            old: whether these are old rows, whose cells can't be unchanged.

        Returns:
            the cells column by column, and the offset behind each tuple, at most the end of its message.
        """
        subject, allowed = ("old row", "'t' or 'n'") if old else ("new row", "'t', 'n' or 'u'")
        stops = self.stops[rows]
        bad = (at + 2 > stops) | (self._shorts[at] != column_count)
        if bad.any():
            self.refuse(bad, rows, at, f"{subject}: expected {column_count} columns", "another number")
        at = at + 2
        columns = []
        for _ in range(column_count):
            kinds = self._octets[at]
            text = kinds == _TEXT
            if text.all():
                starts = at + 5
                ends = starts + self._words[at + 1]
            else:
                bad = ~(text | (kinds == _NULL) | (kinds == (_NULL if old else _UNCHANGED)))
                if bad.any():
                    self.refuse(bad, rows, at, f"{subject}: expected cell kind {allowed}")
                starts = at + np.where(text, 5, 1)
                ends = starts + np.where(text, self._words[at + 1], 0)
            bad = ends > stops
            if bad.any():
                self.refuse(bad, rows, at, f"{subject}: expected a cell that ends in its message", "a longer one")
            columns.append(Cells(kinds, starts, ends))
            at = ends
        return columns, at

    def strings(self, cells: Cells, present: Mask1D) -> pa.Array:
        """Copy a column's values into an Arrow string array; null where not ``present``.

        Raises:
            DecodeError: a value isn't UTF-8.
        """
        row_count = len(self.starts)
        offsets = np.empty(2 * row_count, np.int32)
        offsets[0::2], offsets[1::2] = cells.starts, cells.stops
        # Every second element of this array is a value of the column; those between span to the next row and are
        # never read.
        spans = pa.Array.from_buffers(pa.string(), 2 * row_count - 1, [None, pa.py_buffer(offsets), self._buffer])
        picked = pa.array(self._even) if present.all() else pa.array(self._even, mask=~present)
        values = spans.take(picked)
        if not _is_ascii(values):
            try:
                values.validate(full=True)
            except pa.ArrowInvalid:
                # "from None": the cause's message may hold the value.
                raise DecodeError("row: expected UTF-8, got another encoding") from None
        return values


def check_size(run_bytes: int) -> None:
    """Refuse runs longer than ``RUN_BYTES_MAX``."""
    if run_bytes > RUN_BYTES_MAX:
        raise DecodeError(f"run of rows: expected at most {RUN_BYTES_MAX} bytes, got {run_bytes}")


def _is_ascii(values: pa.Array) -> bool:
    data = values.buffers()[2]
    return data is None or int(np.frombuffer(data, np.uint8).max(initial=0)) < 0x80


@dataclass(frozen=True, slots=True, eq=False)
class RowImages:
    """A run of n rows, read.

    Attributes:
        ops: n x uint8, values of ``Op``.
        old_images: n x uint8, values of ``OldImage``.
        new: the new rows' cells by place of the column on the wire; those of deleted rows are null.
        old: the old rows' cells likewise, m of each: only of the rows that have one.
    """

    run: Run
    ops: Bytes1D
    old_images: Bytes1D
    new: Sequence[Cells]
    old: Sequence[Cells]

    def old_cells(self, place: int) -> Cells:
        """Return the old cells of the column at ``place`` for all n rows, null where a row has none."""
        return self.old[place].spread(np.flatnonzero(self.old_images), self.run.stops)


def read_rows(messages: Sequence[bytes], *, offset: int, in_stream: bool, column_count: int) -> RowImages:
    """Find every cell of a run.

    Args:
        messages: one or more, each an Insert, Update or Delete from byte ``offset`` on.
        offset: bytes before each message.
        in_stream: whether the messages carry a transaction id.
        column_count: how many columns every tuple must have.

    Raises:
        DecodeError: a message is something else, or not as long as its cells.
    """
    run = Run(messages)
    rows = np.arange(len(messages))
    kind_at = run.starts + offset
    tag_at = kind_at + (9 if in_stream else 5)
    bad = tag_at >= run.stops
    if bad.any():
        run.refuse(bad, rows, run.stops, "row: expected a kind, a table and a tuple", "the end")
    kinds, tags = _read_kinds(run, rows, kind_at, tag_at)
    deleted, old_images = kinds == _DELETE, _OLD_IMAGES[tags]

    at = tag_at + 1
    old: list[Cells] = []
    with_old = np.flatnonzero(old_images)
    if len(with_old):
        old, ends = run.tuples(with_old, at[with_old], column_count, old=True)
        at[with_old] = _after_old(run, with_old, ends, deleted[with_old])
    with_new = np.flatnonzero(~deleted)
    new, ends = run.tuples(with_new, at[with_new], column_count, old=False)
    at[with_new] = ends
    bad = at != run.stops
    if bad.any():
        run.refuse(bad, rows, at, "row: expected the end", "more bytes")
    return RowImages(run, _OPS[kinds], old_images, [cells.spread(with_new, run.stops) for cells in new], old)


def _read_kinds(run: Run, rows: Index1D, kind_at: Index1D, tag_at: Index1D) -> tuple[Bytes1D, Bytes1D]:
    """Return kinds I, U and D, and the tags behind them, which are N for I; N, K or O for U; K or O for D."""
    kinds, tags = run.octets(kind_at), run.octets(tag_at)
    bad = _OPS[kinds] == 0
    if bad.any():
        run.refuse(bad, rows, kind_at, "row: expected kind 'I', 'U' or 'D'")
    bad = np.where(tags == _NEW, kinds == _DELETE, (_OLD_IMAGES[tags] == 0) | (kinds == _INSERT))
    if bad.any():
        run.refuse(bad, rows, tag_at, "row: expected 'N' (not for deletes), 'K' or 'O' (not for inserts)")
    return kinds, tags


def _after_old(run: Run, rows: Index1D, at: Index1D, deleted: Mask1D) -> Index1D:
    """Return where the new tuples start behind old ones that end at ``at``; for deleted rows there is none."""
    bad = ~deleted & ((at >= run.stops[rows]) | (run.octets(at) != _NEW))
    if bad.any():
        run.refuse(bad, rows, at, "row: expected a new row behind the old one", "something else")
    return at + ~deleted
