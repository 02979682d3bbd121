"""Row messages of one table into a ``ChangeBatch``.

Pure: bytes in, values out. Large runs are read column by column (``connectors.postgres.columns``), small ones message
by message (``connectors.postgres.pgoutput``); both give equal batches and refuse the same input.
Beside an old key a tuple's other cells mean nothing; only that they are well-formed matters.

The old row has two uses: the key of an update or delete as it was, and the value of a column that the new row doesn't
repeat (unchanged TOAST). Postgres sends an old key for the latter alone, when a key column is itself TOASTed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cdc.change import ChangeBatch, Index1D, Mask1D, OldImage, Op, Presence
from cdc.errors import DecodeError
from cdc.schema import TableSchema
from connectors.postgres.columns import RowImages, check_size, read_rows
from connectors.postgres.messages import Cell, Delete, Insert, TupleData, Update
from connectors.postgres.pgoutput import decode

COLUMNAR_ROWS_MIN = 32
"""Rows from which reading by column is the faster way, measured with 8 columns of text."""


def decode_rows(
    messages: Sequence[bytes],
    *,
    offset: int,
    in_stream: bool,
    schema: TableSchema,
    wire_columns: Sequence[str],
    transactions: Index1D,
    ordinals: Index1D,
) -> ChangeBatch:
    """Read a run of n rows.

    Args:
        messages: n Insert, Update or Delete messages in any mix, all of the table of ``schema``; together at most
            ``columns.RUN_BYTES_MAX`` bytes. They are copied from, never kept.
        offset: bytes before each message, as of the frame that it came in.
        in_stream: whether the messages carry a transaction id, as they do in a stream.
        schema: of the table.
        wire_columns: names of the Relation message's columns in its order; all of them are in ``schema``, which may
            have more.
        transactions: n x int64, for ``ChangeBatch.transactions``; kept.
        ordinals: n x int64, for ``ChangeBatch.ordinals``; kept.

    Raises:
        DecodeError: a message isn't one of the three, has other columns or a binary value, doesn't end where its last
            cell does, isn't UTF-8, or its old key lacks a key column. ``table`` is the table.
    """
    try:
        if len(messages) >= COLUMNAR_ROWS_MIN:
            images = read_rows(messages, offset=offset, in_stream=in_stream, column_count=len(wire_columns))
            return _batch_of_images(images, schema, wire_columns, transactions, ordinals)
        rows = _read_small(messages, offset, in_stream, schema, wire_columns)
        return _batch_of_rows(rows, schema, wire_columns, transactions, ordinals)
    except DecodeError as error:
        error.table = str(schema.table)
        raise


def _key_places(schema: TableSchema, wire_columns: Sequence[str]) -> list[int]:
    """Return the places of the key columns on the wire, for a run that has old keys."""
    key = schema.key
    places = [place for place, name in enumerate(wire_columns) if name in key]
    if not places or len(places) != len(key):
        raise DecodeError(f"old key: expected the {len(key)} columns of the table's key, got {len(places)} of them")
    return places


def _old_key_error(name: str) -> DecodeError:
    return DecodeError(f"old key: expected a value of key column {name!r}, got NULL")


def _batch_of_images(
    images: RowImages,
    schema: TableSchema,
    wire_columns: Sequence[str],
    transactions: Index1D,
    ordinals: Index1D,
) -> ChangeBatch:
    run, columns, presence, old = images.run, {}, {}, {}
    is_row, is_key = images.old_images == OldImage.ROW, images.old_images == OldImage.KEY
    key_places = _key_places(schema, wire_columns) if is_key.any() else []
    old_places = range(len(wire_columns)) if is_row.any() else key_places
    held: dict[int, Mask1D] = {place: is_row | is_key if place in key_places else is_row for place in old_places}
    for place, name in enumerate(wire_columns):
        cells = images.new[place]
        unchanged = cells.is_unchanged
        if unchanged.any():
            if place in held:
                known = unchanged & held[place]
                cells, unchanged = cells.filled(images.old_cells(place), known), unchanged & ~known
            if unchanged.any():
                presence[name] = np.where(unchanged, Presence.UNCHANGED, Presence.VALUE).astype(np.uint8)
        columns[name] = run.strings(cells, cells.is_text)
    for place, rows in held.items():
        name, cells = wire_columns[place], images.old_cells(place)
        if place in key_places and (is_key & ~cells.is_text).any():
            raise _old_key_error(name)
        old[name] = run.strings(cells, cells.is_text & rows)
    return ChangeBatch(
        schema=schema,
        ops=images.ops,
        transactions=transactions,
        ordinals=ordinals,
        columns=columns,
        presence=presence,
        old=old,
        old_images=images.old_images if images.old_images.any() else None,
    )


class _Row(NamedTuple):
    """A row, read: both tuples as long as the wire's columns, None where there is nothing."""

    op: Op
    old_image: OldImage
    old: TupleData
    new: TupleData


def _read_small(
    messages: Sequence[bytes], offset: int, in_stream: bool, schema: TableSchema, wire_columns: Sequence[str]
) -> list[_Row]:
    check_size(sum(map(len, messages)))
    rows = [_read_row(message, offset, in_stream, len(wire_columns)) for message in messages]
    if any(row.old_image is OldImage.KEY for row in rows):
        key_places = _key_places(schema, wire_columns)
        rows = [_with_old_key(row, key_places, wire_columns) if row.old_image is OldImage.KEY else row for row in rows]
    return rows


def _read_row(message: bytes, offset: int, in_stream: bool, column_count: int) -> _Row:
    nothing: TupleData = (None,) * column_count
    match decode(message, in_stream=in_stream, offset=offset):
        case Insert(new=new):
            row = _Row(Op.INSERT, OldImage.NONE, nothing, new)
        case Update(old_image=OldImage.NONE, new=new):
            row = _Row(Op.UPDATE, OldImage.NONE, nothing, new)
        case Update(old_image=old_image, old=old, new=new):
            filled = _filled(new, old, range(len(old))) if old_image is OldImage.ROW else new
            row = _Row(Op.UPDATE, old_image, old, filled)
        case Delete(old_image=old_image, old=old):
            row = _Row(Op.DELETE, old_image, old, nothing)
        case other:
            raise DecodeError(f"row: expected Insert, Update or Delete, got {type(other).__name__} at offset {offset}")
    if len(row.new) != column_count or len(row.old) != column_count:
        raise DecodeError(f"row: expected {column_count} columns, got another number at offset {offset}")
    return row


def _with_old_key(row: _Row, key_places: Sequence[int], wire_columns: Sequence[str]) -> _Row:
    """Return the row with nothing but the key in its old tuple, and what that says in the new one."""
    for place in key_places:
        if row.old[place] is None:
            raise _old_key_error(wire_columns[place])
    old = tuple([cell if place in key_places else None for place, cell in enumerate(row.old)])
    return row._replace(old=old, new=_filled(row.new, old, key_places))


def _filled(new: TupleData, old: TupleData, places: Sequence[int]) -> TupleData:
    """Return the new row with unchanged cells at ``places`` taken from the old one."""
    if Presence.UNCHANGED not in new:
        return new
    return tuple([old[i] if cell is Presence.UNCHANGED and i in places else cell for i, cell in enumerate(new)])


def _batch_of_rows(
    rows: Sequence[_Row],
    schema: TableSchema,
    wire_columns: Sequence[str],
    transactions: Index1D,
    ordinals: Index1D,
) -> ChangeBatch:
    columns, presence, old = {}, {}, {}
    key = schema.key
    old_images = np.array([row.old_image for row in rows], np.uint8)
    for place, name in enumerate(wire_columns):
        cells: list[Cell] = [row.new[place] for row in rows]
        if Presence.UNCHANGED in cells:
            unchanged = [cell is Presence.UNCHANGED for cell in cells]
            presence[name] = np.where(unchanged, Presence.UNCHANGED, Presence.VALUE).astype(np.uint8)
            cells = [None if cell is Presence.UNCHANGED else cell for cell in cells]
        columns[name] = pa.array(cells, pa.string())
    if old_images.any():
        everything = any(row.old_image is OldImage.ROW for row in rows)
        for place, name in enumerate(wire_columns):
            if everything or name in key:
                old[name] = pa.array([row.old[place] for row in rows], pa.string())
    return ChangeBatch(
        schema=schema,
        ops=np.array([row.op for row in rows], np.uint8),
        transactions=transactions,
        ordinals=ordinals,
        columns=columns,
        presence=presence,
        old=old,
        old_images=old_images if old_images.any() else None,
    )
