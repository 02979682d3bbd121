"""Rows of one table in commit order, as columns: what flows from connectors to sinks.

Values are **canonical text** (``cdc.schema`` says which, type by type) in Arrow string columns. Three absences stay
apart to the last sink:

- SQL NULL: an Arrow null whose presence is ``VALUE``;
- unchanged: the source didn't repeat a large value that the statement left alone (``UNCHANGED``);
- not sent: the source's row image leaves the column out (``NOT_SENT``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from cdc.schema import TableSchema, schema_from_json

Bytes1D = np.ndarray[tuple[int], np.dtype[np.uint8]]
Index1D = np.ndarray[tuple[int], np.dtype[np.int64]]
Mask1D = np.ndarray[tuple[int], np.dtype[np.bool_]]


class Op(IntEnum):
    """What happened to a row; the letters are the field's usual ones."""

    INSERT = ord("c")
    UPDATE = ord("u")
    DELETE = ord("d")
    SNAPSHOT = ord("r")
    TRUNCATE = ord("t")


class Presence(IntEnum):
    """Whether a row's cell holds what the column now is."""

    VALUE = 0
    UNCHANGED = 1
    NOT_SENT = 2


class OldImage(IntEnum):
    """What the source sent of the row as it was."""

    NONE = 0
    KEY = ord("K")
    ROW = ord("O")


@dataclass(frozen=True, slots=True, eq=False)
class ChangeBatch:
    """Changes to one table under one schema version; n rows, in commit order.

    A truncate is a batch of its own: one row, no columns. Batches are immutable and may share memory with one another;
    whoever holds one may keep it as long as they like.

    Attributes:
        ops: n x uint8, values of ``Op``.
        transactions: n x int64, each row's transaction as an index into its group's ``Transactions``.
        ordinals: n x int64, each row's place in its transaction, counted over all tables from 0.
        columns: new row by column name, n x pa.string(). A column that is missing was sent for no row. Cells of delete
            rows are null and mean nothing.
        presence: n x uint8 (``Presence``) by column name; a column that is missing has ``VALUE`` in every row.
        old: the row as it was, n x pa.string(), for the columns that any row's old image holds.
        old_images: n x uint8 (``OldImage``); what of ``old`` each row has. None: no row has any.
        mismatch: why the rows don't fit ``schema``; empty if they do. Such a batch has no columns and its ops mean
            nothing: unless a copy holds all of its transactions, it stops the table.
    """

    schema: TableSchema
    ops: Bytes1D
    transactions: Index1D
    ordinals: Index1D
    columns: Mapping[str, pa.Array]
    presence: Mapping[str, Bytes1D]
    old: Mapping[str, pa.Array]
    old_images: Bytes1D | None = None
    mismatch: str = ""

    def __len__(self) -> int:
        return len(self.ops)

    @property
    def is_truncate(self) -> bool:
        """Whether this is a truncate."""
        return len(self.ops) == 1 and int(self.ops[0]) == Op.TRUNCATE

    def filter(self, keep: Mask1D) -> ChangeBatch:
        """Return the rows where ``keep`` is true, in the same order."""
        return self.take(np.flatnonzero(keep))

    def take(self, rows: Index1D) -> ChangeBatch:
        """Return the rows at these indexes, in this order."""
        indexes = pa.array(rows)
        return replace(
            self,
            ops=self.ops[rows],
            transactions=self.transactions[rows],
            ordinals=self.ordinals[rows],
            columns={name: column.take(indexes) for name, column in self.columns.items()},
            presence={name: states[rows] for name, states in self.presence.items()},
            old={name: column.take(indexes) for name, column in self.old.items()},
            old_images=None if self.old_images is None else self.old_images[rows],
        )

    def to_arrow(self) -> pa.RecordBatch:
        """Return the batch as one record batch; ``from_arrow`` reads it back.

        Fields are named ``op``, ``transaction``, ``ordinal``, ``old_image``, and ``new:``, ``presence:`` or ``old:``
        before a column's name; the table's schema is in the metadata under ``table``.
        """
        arrays: dict[str, pa.Array] = {
            "op": pa.array(self.ops),
            "transaction": pa.array(self.transactions),
            "ordinal": pa.array(self.ordinals),
        }
        if self.old_images is not None:
            arrays["old_image"] = pa.array(self.old_images)
        arrays |= {f"new:{name}": column for name, column in self.columns.items()}
        arrays |= {f"presence:{name}": pa.array(states) for name, states in self.presence.items()}
        arrays |= {f"old:{name}": column for name, column in self.old.items()}
        fields = [pa.field(name, array.type) for name, array in arrays.items()]
        metadata = {"table": orjson.dumps(self.schema.to_json()), "mismatch": self.mismatch}
        return pa.RecordBatch.from_arrays(list(arrays.values()), schema=pa.schema(fields, metadata=metadata))

    @classmethod
    def from_arrow(cls, batch: pa.RecordBatch) -> ChangeBatch:
        """Read what ``to_arrow`` wrote."""

        def prefixed(prefix: str) -> dict[str, Any]:
            names = [name for name in batch.schema.names if name.startswith(prefix)]
            return {name.removeprefix(prefix): batch.column(name) for name in names}

        def numbers(name: str) -> Any:
            return batch.column(name).to_numpy(zero_copy_only=False)

        metadata = batch.schema.metadata or {}
        return cls(
            schema=schema_from_json(orjson.loads(metadata[b"table"])),
            ops=numbers("op"),
            transactions=numbers("transaction"),
            ordinals=numbers("ordinal"),
            columns=prefixed("new:"),
            presence={name: a.to_numpy(zero_copy_only=False) for name, a in prefixed("presence:").items()},
            old=prefixed("old:"),
            old_images=numbers("old_image") if "old_image" in batch.schema.names else None,
            mismatch=metadata[b"mismatch"].decode(),
        )
