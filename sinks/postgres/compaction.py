"""Reduces a batch to what it comes to: one write per row of the lake, in sets. Pure.

Every row of the batch belongs to one *object*: something with an identity at the source, from its insert (or from
before the batch) to its delete, whatever its key becomes meanwhile. Without key changes an object is found by its
key, or by the delete that ends it, and everything is done by columns. Keys that changes of keys touch are followed
row by row.

The result is exact: applying it to the lake leaves what applying the rows one by one would, and a row that was deleted
and inserted again is deleted and inserted, so that nothing of the old one survives, however rows are cut into groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cdc.change import Bytes1D, ChangeBatch, Index1D, Mask1D, OldImage, Op, Presence

Columns = dict[str, pa.Array]


@dataclass(frozen=True, slots=True)
class Rows:
    """m rows to be written, by column, all m x pa.string().

    Attributes:
        columns: the new values; columns that are left out keep what the lake has.
        old_key: where each row is in the lake, in key order; empty if where its new key says.
        complete: whether these are all values that the batch could have for such a row, so that it may be inserted.
    """

    columns: Columns
    old_key: Sequence[pa.Array] = ()
    complete: bool = True

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a batch comes to. Written in this order: deletes, moves, patches, upserts.

    Attributes:
        deletes: keys, by key column; empty without any.
        moves: rows whose key changes, per set of columns.
        moves_meet: a moved row's new key is where another one was, so that the moves must all be lifted first.
        patches: rows of which some values aren't known, per set of columns that are.
        upserts: rows with all their values; None without any.
    """

    deletes: Columns
    moves: Sequence[Rows]
    moves_meet: bool
    patches: Sequence[Rows]
    upserts: Rows | None


@dataclass(frozen=True, slots=True, eq=False)
class Normalized:
    """A batch whose old images have been put to use; n rows.

    Attributes:
        key: each row's key by key column: as it becomes, for deletes as it was.
        moved: indexes of the rows that change their key, ascending.
        old_key: the key as it was, by key column, one element per element of ``moved``.
        columns: the batch's, with unchanged cells filled from old rows.
        absent: by column, where a cell's value isn't known; columns without such cells are left out.
        old: the rows as they were, by column.
        has_old_row: n x bool, which rows have all of ``old``.
    """

    ops: Bytes1D
    key: Columns
    moved: Index1D
    old_key: Columns
    columns: Columns
    absent: Mapping[str, Mask1D]
    old: Mapping[str, pa.Array]
    has_old_row: Mask1D


def normalize(batch: ChangeBatch, key: Sequence[str]) -> Normalized:
    """Fill unchanged cells and deleted keys from old images, and find the key changes.

    Raises:
        ValueError: a delete has no old image, or a key column was never sent.
    """
    deleted = batch.ops == Op.DELETE
    has_old = np.zeros(len(batch), np.bool_) if batch.old_images is None else batch.old_images != OldImage.NONE
    if (deleted & ~has_old).any():
        raise ValueError("delete: expected the old key, got none")
    columns, absent = _filled(batch, deleted)
    keys: Columns = {}
    for name in key:
        if (name not in columns and not deleted.all()) or (has_old.any() and name not in batch.old):
            raise ValueError(f"key column {name}: expected a value in every row, got none")
        keys[name] = _key_column(columns.get(name), batch.old.get(name), deleted, absent.get(name), has_old)
        if keys[name].null_count:
            raise ValueError(f"key column {name}: expected a value in every row, got NULL")
    moved = _moved(batch, keys, has_old & (batch.ops == Op.UPDATE))
    chosen = pa.array(moved)
    return Normalized(
        ops=batch.ops,
        key=keys,
        moved=moved,
        old_key={name: batch.old[name].take(chosen) for name in key} if len(moved) else {},
        columns=columns | keys,
        absent={name: mask for name, mask in absent.items() if name not in keys},
        old=batch.old,
        has_old_row=has_old if batch.old_images is None else batch.old_images == OldImage.ROW,
    )


def _filled(batch: ChangeBatch, deleted: Mask1D) -> tuple[Columns, dict[str, Mask1D]]:
    """Take unchanged cells from whole old rows; return the columns, and which cells remain without a value."""
    columns, absent = dict(batch.columns), {}
    for name, states in batch.presence.items():
        missing = (states != Presence.VALUE) & ~deleted
        if not missing.any() or name not in columns:
            continue
        if batch.old_images is not None and name in batch.old:
            from_old = missing & (batch.old_images == OldImage.ROW)
            if from_old.any():
                columns[name] = choose(from_old, batch.old[name], columns[name])
                missing &= ~from_old
        if missing.any():
            absent[name] = missing
    return columns, absent


def _key_column(
    new: pa.Array | None, old: pa.Array | None, deleted: Mask1D, absent: Mask1D | None, has_old: Mask1D
) -> pa.Array:
    """Return a key column: the old value for deletes, and where an unchanged key wasn't repeated."""
    from_old = deleted if absent is None else deleted | (absent & has_old)
    if new is None or (old is not None and from_old.all()):
        return old
    return choose(from_old, old, new) if old is not None and from_old.any() else new


def _moved(batch: ChangeBatch, keys: Columns, candidates: Mask1D) -> Index1D:
    """Return the rows whose old key differs from the new one."""
    rows = np.flatnonzero(candidates)
    if not len(rows):
        return rows
    chosen = pa.array(rows)
    differs = np.zeros(len(rows), np.bool_)
    for name, column in keys.items():
        both = pa.chunked_array([column.take(chosen), batch.old[name].take(chosen)]).combine_chunks()
        codes = encode([both])
        differs |= codes[: len(rows)] != codes[len(rows) :]
    return rows[differs]


def compact(rows: Normalized) -> Compacted:
    """Reduce a batch of a keyed table, whose rows are in commit order."""
    row_count = len(rows.ops)
    joined = [_concat(column, rows.old_key[name]) if len(rows.moved) else column for name, column in rows.key.items()]
    codes = encode(joined)
    objects = _objects(rows, codes)
    object_count = len(objects.origin)
    is_delete = rows.ops == Op.DELETE
    last = _latest(objects.of_row, np.arange(row_count), object_count)
    turns = np.flatnonzero(is_delete | (rows.ops == Op.INSERT) | (rows.ops == Op.SNAPSHOT))
    since = _latest(objects.of_row, turns, object_count)
    born = (since >= 0) & ~is_delete[since]
    ever_deleted = np.zeros(object_count, np.bool_)
    ever_deleted[objects.of_row[is_delete]] = True
    live = (last >= 0) & ~is_delete[last]

    place = _latest(codes, np.arange(len(codes)), int(codes.max(initial=-1)) + 1)
    gone = place[objects.origin[ever_deleted & (objects.origin >= 0)]]
    deletes = dict(zip(rows.key, (column.take(pa.array(gone)) for column in joined), strict=True)) if len(gone) else {}

    alive = np.flatnonzero(live)
    if not len(alive):
        return Compacted(deletes, (), moves_meet=False, patches=(), upserts=None)
    origin, final = objects.origin[alive], codes[last[alive]]
    shifted = (origin >= 0) & (origin != final)
    cells = _Cells(
        rows,
        objects.of_row,
        last=last[alive],
        since=since[alive],
        born=born[alive],
        alive=alive,
        object_count=object_count,
    )
    old_key = [column.take(pa.array(place[origin], mask=origin < 0)) for column in joined] if shifted.any() else []
    moves = cells.sets(shifted, old_key)
    others = cells.sets(~shifted, [])
    whole = [part for part in others if part.complete]
    return Compacted(
        deletes=deletes,
        moves=moves,
        moves_meet=bool(np.isin(final[shifted], origin[shifted]).any()),
        patches=[part for part in others if not part.complete],
        upserts=whole[0] if whole else None,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Objects:
    """Which object each row is about.

    Attributes:
        of_row: n x int64, numbers from 0.
        origin: by object, the code of the key where the lake has it before the batch; -1 for those that the batch made.
    """

    of_row: Index1D
    origin: Index1D

    last_code: Index1D
    """By object, the code of its last key."""


def _objects(rows: Normalized, codes: Index1D) -> _Objects:
    """Find out which object each row is about.

    Args:
        rows: at least one.
        codes: of the rows' keys, then of those that ``moved`` had.
    """
    row_count = len(rows.ops)
    inserts = codes[:row_count][(rows.ops == Op.INSERT) | (rows.ops == Op.SNAPSHOT)]
    repeated = np.bincount(codes[:row_count], minlength=int(codes.max()) + 1)[inserts] > 1
    doubtful = inserts[repeated] if rows.has_old_row.any() else inserts[:0]
    if not len(rows.moved) and not len(doubtful):
        origin = np.arange(int(codes.max()) + 1)
        return _Objects(codes, origin, origin)
    touched = np.isin(codes[:row_count], np.concatenate([codes[row_count:], codes[rows.moved], doubtful]))
    images = _images(rows) if rows.has_old_row.any() else None
    objects = _follow(rows, codes, touched, images)
    if images is not None and not _keys_are_distinct(rows, objects):
        return _follow(rows, codes, touched, None)
    return objects


def _images(rows: Normalized) -> tuple[list[int], list[int]] | None:
    """Return numbers that are equal where whole rows are, of new rows and of old; None if columns are missing."""
    if rows.absent or rows.old.keys() != rows.columns.keys():
        return None
    row_count = len(rows.ops)
    codes = encode([_concat(column, rows.old[name]) for name, column in rows.columns.items()]).tolist()
    return codes[:row_count], codes[row_count:]


def _follow(rows: Normalized, codes: Index1D, touched: Mask1D, images: tuple[list[int], list[int]] | None) -> _Objects:
    """Follow the objects behind the touched keys row by row; all others are found by their key.

    Under a deferrable key two objects may have the same key for a while. Their sources send whole old rows, and
    ``images`` tell which of them a row is about: the one that looked so when it was last written, else the one that the
    lake has. Sources that don't send whole old rows check keys at once, and the last to get a key is the one.
    """
    row_count = len(rows.ops)
    of_row = codes[:row_count].copy()
    origin = list(range(int(codes.max()) + 1))
    last_code = list(origin)
    last_row: dict[int, int] = {}
    old_codes = dict(zip(rows.moved.tolist(), codes[row_count:].tolist(), strict=True))
    holders: dict[int, list[int]] = {}

    def find(row: int, code: int) -> int:
        held = holders.get(code, [])
        by_image = images is not None and bool(rows.has_old_row[row])
        for number in reversed(held):
            if not by_image or images is None or images[0][last_row[number]] == images[1][row]:
                held.remove(number)
                return number
        origin.append(code)
        last_code.append(code)
        return len(origin) - 1

    for row in np.flatnonzero(touched).tolist():
        code, op = int(codes[row]), rows.ops[row]
        if op in (Op.INSERT, Op.SNAPSHOT):
            number = len(origin)
            origin.append(-1)
            last_code.append(code)
        else:
            number = find(row, old_codes.get(row, code))
        if op != Op.DELETE:
            holders.setdefault(code, []).append(number)
        last_row[number], last_code[number], of_row[row] = row, code, number
    return _Objects(of_row, np.array(origin, np.int64), np.array(last_code, np.int64))


def _keys_are_distinct(rows: Normalized, objects: _Objects) -> bool:
    """Return whether no two objects are left with one key: otherwise the images told them apart wrongly."""
    last = _latest(objects.of_row, np.arange(len(rows.ops)), len(objects.origin))
    left = objects.last_code[(last >= 0) & (rows.ops[last] != Op.DELETE)]
    return len(np.unique(left)) == len(left)


class _Cells:
    """The last known value of each live object's cells; k objects."""

    def __init__(
        self,
        rows: Normalized,
        of_row: Index1D,
        *,
        last: Index1D,
        since: Index1D,
        born: Mask1D,
        alive: Index1D,
        object_count: int,
    ) -> None:
        self._rows = rows
        self._sources = {
            name: self._latest_known(mask, of_row, since, alive, object_count) for name, mask in rows.absent.items()
        }
        self._last = last
        self._unknown = {name: (at < 0) & ~born for name, at in self._sources.items()}

    def _latest_known(
        self, absent: Mask1D, of_row: Index1D, since: Index1D, alive: Index1D, object_count: int
    ) -> Index1D:
        """Return for each live object the row that holds the column's value: -1 for none since it was born."""
        known = np.flatnonzero(~absent & (self._rows.ops != Op.DELETE))
        at = _latest(of_row, known, object_count)[alive]
        return np.where(at >= since, at, -1)

    def sets(self, wanted: Mask1D, old_key: Sequence[pa.Array]) -> list[Rows]:
        """Return the wanted objects, those with the same columns together, whole ones first."""
        chosen = np.flatnonzero(wanted)
        if not len(chosen):
            return []
        unknown = {name: mask[chosen] for name, mask in self._unknown.items() if mask[chosen].any()}
        if not unknown:
            return [self._rows_of(chosen, frozenset(), old_key)]
        patterns, which = np.unique(np.column_stack(list(unknown.values())), axis=0, return_inverse=True)
        names = list(unknown)
        return [
            self._rows_of(
                chosen[which.reshape(-1) == i],
                frozenset(n for n, out in zip(names, pattern, strict=True) if out),
                old_key,
            )
            for i, pattern in enumerate(patterns)
        ]

    def _rows_of(self, chosen: Index1D, left_out: frozenset[str], old_key: Sequence[pa.Array]) -> Rows:
        columns: Columns = {}
        for name, column in self._rows.columns.items():
            if name in left_out:
                continue
            columns[name] = _take(column, self._sources.get(name, self._last)[chosen])
        return Rows(columns, [_take(part, chosen) for part in old_key], complete=not left_out)


def encode(columns: Sequence[pa.Array]) -> Index1D:
    """Return numbers from 0 that are equal exactly where all of the columns are; NULL equals NULL."""
    codes = _encode_one(columns[0])
    for column in columns[1:]:
        more = _encode_one(column)
        # At most n * n for n rows, so it can't overflow.
        pairs = codes * (int(more.max(initial=0)) + 1) + more
        codes = np.unique(pairs, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return codes


def _encode_one(column: pa.Array) -> Index1D:
    codes: Index1D = column.dictionary_encode("encode").indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def choose(first: Mask1D, yes: pa.Array, no: pa.Array) -> pa.Array:
    """Return ``yes`` where ``first`` holds, else ``no``."""
    row_count = len(first)
    return _concat(yes, no).take(pa.array(np.arange(row_count) + np.where(first, 0, row_count)))


def _take(column: pa.Array, rows: Index1D) -> pa.Array:
    """Return the elements at these indexes; NULL for -1."""
    if len(rows) == len(column) and np.array_equal(rows, np.arange(len(rows))):
        return column
    return column.take(pa.array(rows, mask=rows < 0))


def _concat(first: pa.Array, second: pa.Array) -> pa.Array:
    return pa.concat_arrays([first, second])


def _latest(of: Index1D, indexes: Index1D, count: int) -> Index1D:
    """Return by number the greatest of ``indexes`` (ascending) that belongs to it; -1 for none.

    NumPy assigns repeated indexes in order, so the last one stays.
    """
    latest = np.full(count, -1, np.int64)
    latest[of[indexes]] = indexes
    return latest
