"""Raw row messages on their way from the socket to a batch, in memory or on disk.

A **piece** is a run of messages of one relation under one definition; pieces of one relation are in commit order. A
transaction that outgrows its memory budget moves its pieces to a **spill file** and goes on. Messages stay undecoded
until a group is read, so that receiving costs little and spilling costs no more than writing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import numpy as np

from cdc.change import ChangeBatch, Index1D, Op
from cdc.errors import DecodeError, LocalDiskError
from cdc.schema import TableId, TableSchema
from connectors.postgres.frames import XLOG_DATA_HEADER_BYTES
from connectors.postgres.rows import decode_rows

BATCH_BYTES = 4 << 20
"""About how many bytes are decoded into one batch: what a processor's cache holds decodes three times as fast."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A relation as the stream defines it.

    Attributes:
        names: columns in wire order.
        schema: what the catalog says of this table.
        mismatch: why its rows don't fit ``schema``; empty if they do.
    """

    names: tuple[str, ...]
    schema: TableSchema
    mismatch: str = ""


@dataclass(frozen=True, slots=True)
class Rows:
    """A piece's rows: messages as received, and for each its transaction's index and its ordinal."""

    messages: list[bytes]
    transactions: Index1D
    ordinals: Index1D


@dataclass(slots=True)
class Piece:
    """Consecutive row messages of one relation; or a truncate, which has one row and no message.

    Attributes:
        in_stream: messages carry a transaction id behind the kind byte.
        transactions: each row's transaction as an index into the group's, before ``shift`` is added.
        shift: a streamed transaction's index, known once it commits; 0 otherwise.
        subtransaction: whose rows these are, where the stream says so; 0 otherwise.
        size_bytes: of all messages.
        spilled: where the rows lie once they have left memory.
    """

    layout: Layout
    in_stream: bool = False
    subtransaction: int = 0
    truncate: bool = False
    messages: list[bytes] = field(default_factory=list)
    transactions: list[int] = field(default_factory=list)
    ordinals: list[int] = field(default_factory=list)
    shift: int = 0
    size_bytes: int = 0
    spilled: SpilledRows | None = None

    def __len__(self) -> int:
        return len(self.ordinals) if self.spilled is None else self.spilled.count

    def load(self) -> Rows:
        """Return the rows, from memory or disk."""
        if self.spilled is None:
            transactions = np.array(self.transactions, dtype=np.int64)
            rows = Rows(self.messages, transactions, np.array(self.ordinals, dtype=np.int64))
        else:
            rows = self.spilled.load()
        return rows if not self.shift else replace(rows, transactions=rows.transactions + self.shift)


class SpillFile:
    """A temporary file without a name, so that a killed process leaves nothing behind.

    Layout of a piece, in native byte order; n rows, m of them with a message (a truncate has none)::

        offset      size  type      field
        0           4n    uint32[n] transactions
        4n          4n    uint32[n] ordinals
        8n          4m    uint32[m] lengths of the messages
        8n + 4m     -     bytes     the messages, one after the other
    """

    def __init__(self) -> None:
        with _room():
            self._file: BinaryIO = tempfile.TemporaryFile(prefix="cdc-")  # noqa: SIM115 - closed by close()
        self.size_bytes = 0

    def write(self, piece: Piece) -> None:
        """Move a piece's rows to the end of the file."""
        numbers = [piece.transactions, piece.ordinals, [len(message) for message in piece.messages]]
        data = b"".join([*(np.array(row, dtype=np.uint32).tobytes() for row in numbers), *piece.messages])
        written = 0
        with _room():
            while written < len(data):
                written += os.pwrite(self._file.fileno(), memoryview(data)[written:], self.size_bytes + written)
        piece.spilled = SpilledRows(self._file, self.size_bytes, len(data), len(piece), len(piece.messages))
        piece.messages, piece.transactions, piece.ordinals = [], [], []
        self.size_bytes += len(data)

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        directory = tempfile.gettempdir()
        raise LocalDiskError(f"spill file: expected room in {directory}, got: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class SpilledRows:
    """Where a piece's rows lie in a spill file."""

    file: BinaryIO
    offset: int
    size_bytes: int
    count: int
    message_count: int

    def load(self) -> Rows:
        """Read the rows back."""
        data = os.pread(self.file.fileno(), self.size_bytes, self.offset)
        if len(data) != self.size_bytes:
            expected = f"expected {self.size_bytes} bytes, got {len(data)}"
            raise DecodeError(f"spill file: {expected} at offset {self.offset}")
        numbers = np.frombuffer(data, dtype=np.uint32, count=2 * self.count + self.message_count).astype(np.int64)
        ends = (np.cumsum(numbers[2 * self.count :]) + 4 * len(numbers)).tolist()
        starts = [4 * len(numbers), *ends[:-1]]
        messages = [data[start:end] for start, end in zip(starts, ends, strict=True)] if ends else []
        return Rows(messages, numbers[: self.count], numbers[self.count : 2 * self.count])


def read_batches(pieces: Iterable[Piece], tables: Collection[TableId]) -> Iterator[ChangeBatch]:
    """Decode the pieces of these tables, each table's in order, joined to batches of about ``BATCH_BYTES``.

    Raises:
        DataError: rows can't be decoded. Rows that don't fit their table's schema come as batches that say so.
    """
    runs: dict[TableId, list[Piece]] = {}
    held_bytes = 0
    for piece in pieces:
        table = piece.layout.schema.table
        if table not in tables:
            continue
        run = runs.setdefault(table, [])
        if run and not _joins(run[-1], piece):
            yield _decode(runs.pop(table))
            run = runs.setdefault(table, [])
        run.append(piece)
        held_bytes += piece.size_bytes
        if held_bytes >= BATCH_BYTES:
            yield from map(_decode, runs.values())
            runs, held_bytes = {}, 0
    yield from map(_decode, runs.values())


def _joins(before: Piece, after: Piece) -> bool:
    return (
        before.layout is after.layout
        and before.in_stream == after.in_stream
        and not before.truncate
        and not after.truncate
    )


def _decode(run: list[Piece]) -> ChangeBatch:
    first = run[0]
    schema = first.layout.schema
    loaded = [piece.load() for piece in run]
    transactions = np.concatenate([rows.transactions for rows in loaded])
    ordinals = np.concatenate([rows.ordinals for rows in loaded])
    if first.layout.mismatch:
        ops, mismatch = np.full(len(ordinals), Op.UPDATE, dtype=np.uint8), first.layout.mismatch
        return ChangeBatch(schema, ops, transactions, ordinals, columns={}, presence={}, old={}, mismatch=mismatch)
    if first.truncate:
        ops = np.array([Op.TRUNCATE], dtype=np.uint8)
        return ChangeBatch(schema, ops, transactions, ordinals, columns={}, presence={}, old={})
    try:
        return decode_rows(
            [message for rows in loaded for message in rows.messages] if len(loaded) > 1 else loaded[0].messages,
            offset=XLOG_DATA_HEADER_BYTES,
            in_stream=first.in_stream,
            schema=schema,
            wire_columns=first.layout.names,
            transactions=transactions,
            ordinals=ordinals,
        )
    except DecodeError as error:
        raise DecodeError(str(error), table=str(schema.table)) from error
