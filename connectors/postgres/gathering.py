"""What has arrived of transactions and is no group yet: pieces, counted in memory and on disk. No protocol here."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from cdc.group import CommitGroup, Transactions
from connectors.postgres.pieces import Piece, SpillFile, read_batches
from connectors.postgres.position import PostgresPosition


@dataclass(slots=True)
class Gathered:
    """Pieces of one or more transactions, and the piece that each relation's next row joins."""

    pieces: list[Piece] = field(default_factory=list)
    joinable: dict[bytes, Piece] = field(default_factory=dict)
    memory_bytes: int = 0
    size_bytes: int = 0
    row_count: int = 0
    ordinal: int = 0
    """Ordinal of the current transaction's next change."""
    subtransaction: bytes = b""
    """Of the last row, where the stream says so: rows before and after another's must not be joined."""
    spill_file: SpillFile | None = None

    def spill(self) -> None:
        """Move everything that is in memory to disk."""
        if self.spill_file is None:
            self.spill_file = SpillFile()
        for piece in self.pieces:
            if piece.messages:
                self.spill_file.write(piece)
        self.joinable.clear()
        self.memory_bytes = 0

    def close(self) -> None:
        """Give the disk space back."""
        if self.spill_file is not None:
            self.spill_file.close()

    @property
    def spilled_bytes(self) -> int:
        """Bytes on disk."""
        return self.spill_file.size_bytes if self.spill_file else 0


@dataclass(slots=True)
class Pending:
    """The group that grows: committed transactions, and perhaps one that is just arriving."""

    rows: Gathered = field(default_factory=Gathered)
    ids: list[int] = field(default_factory=list)
    commit_times_us: list[int] = field(default_factory=list)
    files: list[Gathered] = field(default_factory=list)
    end_lsn: int = 0

    @property
    def spilled_bytes(self) -> int:
        """Bytes on disk."""
        return sum(part.spilled_bytes for part in (self.rows, *self.files))

    def group(self, source: str, position: PostgresPosition) -> CommitGroup:
        """Return what has been gathered as a group; it owns the disk space from now on."""
        return CommitGroup(
            source=source,
            position=position,
            transactions=Transactions(
                ids=np.array(self.ids, dtype=np.int64),
                commit_times_us=np.array(self.commit_times_us, dtype=np.int64),
            ),
            tables=frozenset(piece.layout.schema.table for piece in self.rows.pieces),
            read=partial(read_batches, self.rows.pieces),
            row_count=self.rows.row_count,
            size_bytes=self.rows.size_bytes,
            release=self.release,
        )

    def release(self) -> None:
        """Give the disk space back."""
        for part in (self.rows, *self.files):
            part.close()


@dataclass(slots=True)
class Prepared:
    """A prepared transaction that waits for its outcome; ``prepare_lsn`` is where its PREPARE lies."""

    rows: Gathered
    prepare_lsn: int
