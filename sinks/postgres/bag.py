"""Reduces a batch of a table that has no key, but whose source sends whole old rows. Pure.

Rows that are equal can't be told apart, so the table is a bag: a delete takes one of the equal rows, and so does an
update. As with keys, what matters is what the batch comes to: which of the lake's rows go, which become what, and which
are new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cdc.change import ChangeBatch, Index1D, OldImage, Op, Presence
from sinks.postgres.compaction import Columns, choose, encode


@dataclass(frozen=True, slots=True)
class CompactedBag:
    """What a batch comes to; written in this order. Each part is by column, and empty without rows.

    Attributes:
        deletes: old rows, each of which one equal row of the lake goes for.
        updates_old: old rows, each of which one equal row of the lake becomes that of ``updates`` in the same place.
        inserts: new rows.
    """

    deletes: Columns
    updates_old: Columns
    updates: Columns
    inserts: Columns


def compact_bag(batch: ChangeBatch) -> CompactedBag:
    """Reduce a batch whose rows are in commit order.

    Raises:
        ValueError: an update or a delete has no whole old row.
    """
    inserted = (batch.ops == Op.INSERT) | (batch.ops == Op.SNAPSHOT)
    if inserted.all():
        return CompactedBag({}, {}, {}, dict(batch.columns))
    if batch.old_images is None or (batch.old_images[~inserted] != OldImage.ROW).any():
        raise ValueError("update or delete: expected the whole old row, got less")
    old = dict(batch.old)
    if (batch.ops == Op.DELETE).all():
        return CompactedBag(old, {}, {}, {})
    columns = _filled(batch)
    if columns.keys() != old.keys():
        raise ValueError("old row: expected the new row's columns, got others")
    codes = encode([pa.concat_arrays([column, old[name]]) for name, column in columns.items()])
    deleted, changed, written, added = _follow(batch, codes[: len(batch)].tolist(), codes[len(batch) :].tolist())
    return CompactedBag(_take(old, deleted), _take(old, changed), _take(columns, written), _take(columns, added))


def _filled(batch: ChangeBatch) -> Columns:
    """Take unchanged cells from the old rows."""
    columns = dict(batch.columns)
    for name, states in batch.presence.items():
        unchanged = (states != Presence.VALUE) & (batch.ops == Op.UPDATE)
        if unchanged.any() and name in columns and name in batch.old:
            columns[name] = choose(unchanged, batch.old[name], columns[name])
    return columns


def _follow(
    batch: ChangeBatch, new: Sequence[int], old: Sequence[int]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return the rows whose old row is deleted, whose old row is updated, what those become, and what is inserted."""
    held: dict[int, list[int]] = {}
    origins: list[int] = []
    lasts: list[int] = []
    for row, op in enumerate(batch.ops.tolist()):
        is_new = op in (Op.INSERT, Op.SNAPSHOT)
        if not is_new and held.get(old[row]):
            number = held[old[row]].pop()
        else:
            number = len(origins)
            origins.append(-1 if is_new else row)
            lasts.append(row)
        lasts[number] = -1 if op == Op.DELETE else row
        if op != Op.DELETE:
            held.setdefault(new[row], []).append(number)
    pairs = list(zip(origins, lasts, strict=True))
    changed = [(origin, last) for origin, last in pairs if min(origin, last) >= 0 and old[origin] != new[last]]
    return (
        [origin for origin, last in pairs if last < 0 <= origin],
        [origin for origin, _ in changed],
        [last for _, last in changed],
        [last for origin, last in pairs if origin < 0 <= last],
    )


def _take(columns: Columns, rows: Sequence[int]) -> Columns:
    if not rows:
        return {}
    indexes: Index1D = np.array(rows, np.int64)
    return {name: column.take(pa.array(indexes)) for name, column in columns.items()}
