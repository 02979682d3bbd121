"""Any run of row messages becomes the batch that a plain model of it says, by row and by column alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pgoutput_encoder import XLOG_HEADER, Cell, Row

from cdc.change import ChangeBatch, OldImage, Op, Presence
from cdc.errors import DecodeError
from cdc.schema import Column, RowIdentity, TableId, TableSchema, Text
from connectors.postgres import rows as rows_module
from connectors.postgres.rows import decode_rows

UNCHANGED = Presence.UNCHANGED
BY_ROW, BY_COLUMN = 10**9, 1


def schema_of(names: Sequence[str], key: Sequence[str]) -> TableSchema:
    places = {name: place for place, name in enumerate(key)}
    columns = tuple(Column(name, Text(), "text", key_ordinal=places.get(name)) for name in names)
    return TableSchema(TableId("public", "t"), "postgres", columns, RowIdentity.KEY)


def decoded(
    messages: Sequence[bytes],
    schema: TableSchema,
    columnar_rows_min: int,
    *,
    wire_columns: Sequence[str] | None = None,
    offset: int = len(XLOG_HEADER),
    in_stream: bool = False,
) -> ChangeBatch:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "COLUMNAR_ROWS_MIN", columnar_rows_min)
        return decode_rows(
            messages,
            offset=offset,
            in_stream=in_stream,
            schema=schema,
            wire_columns=schema.names if wire_columns is None else wire_columns,
            transactions=np.arange(len(messages)) // 2,
            ordinals=np.arange(len(messages)) % 2,
        )


def plain(batch: ChangeBatch) -> dict[str, Any]:
    """Return a batch as lists, with its types."""
    for array in (*batch.columns.values(), *batch.old.values()):
        assert array.type == pa.string()
        array.validate(full=True)
    assert batch.ops.dtype == np.uint8
    assert all(states.dtype == np.uint8 for states in batch.presence.values())
    assert batch.old_images is None or batch.old_images.dtype == np.uint8
    return {
        "schema": batch.schema,
        "ops": batch.ops.tolist(),
        "transactions": batch.transactions.tolist(),
        "ordinals": batch.ordinals.tolist(),
        "columns": {name: array.to_pylist() for name, array in batch.columns.items()},
        "presence": {name: states.tolist() for name, states in batch.presence.items()},
        "old": {name: array.to_pylist() for name, array in batch.old.items()},
        "old_images": None if batch.old_images is None else batch.old_images.tolist(),
    }


def model(rows: Sequence[Row], schema: TableSchema, names: Sequence[str]) -> dict[str, Any]:
    """Say cell by cell what a run means."""

    def holds_old(row: Row, name: str) -> bool:
        return row.old_image is OldImage.ROW or (row.old_image is OldImage.KEY and name in schema.key)

    def new_cell(row: Row, place: int) -> Cell:
        if row.op is Op.DELETE:
            return None
        cell = row.new[place]
        return row.old[place] if cell is UNCHANGED and holds_old(row, names[place]) else cell

    new = {name: [new_cell(row, place) for row in rows] for place, name in enumerate(names)}
    return {
        "schema": schema,
        "ops": [row.op for row in rows],
        "transactions": [n // 2 for n in range(len(rows))],
        "ordinals": [n % 2 for n in range(len(rows))],
        "columns": {name: [None if cell is UNCHANGED else cell for cell in cells] for name, cells in new.items()},
        "presence": {
            name: [int(cell is UNCHANGED) for cell in cells] for name, cells in new.items() if UNCHANGED in cells
        },
        "old": {
            name: [row.old[place] if holds_old(row, name) else None for row in rows]
            for place, name in enumerate(names)
            if any(holds_old(row, name) for row in rows)
        },
        "old_images": [row.old_image for row in rows] if any(row.old_image for row in rows) else None,
    }


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(["", "1", "x" * 300, "é" * 200])
old_cells: st.SearchStrategy[Cell] = st.none() | texts
new_cells: st.SearchStrategy[Cell] = old_cells | st.just(UNCHANGED)
images = {
    Op.INSERT: [OldImage.NONE],
    Op.UPDATE: [OldImage.NONE, OldImage.KEY, OldImage.ROW],
    Op.DELETE: [OldImage.KEY, OldImage.ROW],
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[TableSchema, list[str]]:
    """A schema with a key, and the columns on the wire: those of the key and some others."""
    names = [f"c{n}" for n in range(draw(st.integers(1, 6)))]
    key = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
    sent = [name for name in names if name in key or draw(st.integers(0, 4))]
    return schema_of(names, key), draw(st.permutations(sent))


@st.composite
def row_messages(draw: st.DrawFn, schema: TableSchema, names: Sequence[str]) -> Row:
    op = draw(st.sampled_from([Op.INSERT, Op.UPDATE, Op.DELETE]))
    image = draw(st.sampled_from(images[op]))
    old: list[Cell] = []
    if image is OldImage.ROW:
        old = [draw(old_cells) for _ in names]
    elif image is OldImage.KEY:
        old = [draw(texts) if name in schema.key else None for name in names]
    new = [] if op is Op.DELETE else [draw(new_cells) for _ in names]
    return Row(op=op, old_image=image, old=old, new=new)


@st.composite
def runs(draw: st.DrawFn) -> tuple[TableSchema, list[str], list[Row]]:
    schema, names = draw(tables())
    some = draw(st.lists(row_messages(schema, names), min_size=1, max_size=8))
    # Long runs cost too much to draw cell by cell: the rows drawn come again in a drawn order.
    order = draw(st.randoms(use_true_random=False))
    return schema, names, some + order.choices(some, k=draw(st.sampled_from([0, 1, 60])))


@settings(deadline=None)
@given(runs(), st.none() | st.integers(0, 2**32 - 1), st.sampled_from([b"", XLOG_HEADER]))
def test_batch_is_what_the_model_says(
    run: tuple[TableSchema, list[str], list[Row]], xid: int | None, header: bytes
) -> None:
    schema, names, rows = run
    messages = [header + row.encode(xid=xid) for row in rows]
    for columnar_rows_min in (BY_ROW, BY_COLUMN, rows_module.COLUMNAR_ROWS_MIN):
        batch = decoded(
            messages,
            schema,
            columnar_rows_min,
            wire_columns=names,
            offset=len(header),
            in_stream=xid is not None,
        )
        assert plain(batch) == model(rows, schema, names)
        assert list(batch.columns) == names


def outcome(decode: Callable[[], ChangeBatch]) -> dict[str, Any] | str | None:
    """Return the batch, or of the error the table."""
    try:
        return plain(decode())
    except DecodeError as error:
        return error.table


@settings(deadline=None)
@given(runs(), st.data())
def test_corrupt_bytes_mean_the_same_by_row_and_by_column(
    run: tuple[TableSchema, list[str], list[Row]], data: st.DataObject
) -> None:
    schema, names, rows = run
    messages = [bytearray(XLOG_HEADER + row.encode()) for row in rows]
    for _ in range(data.draw(st.integers(1, 3))):
        message = messages[data.draw(st.integers(0, len(messages) - 1))]
        at = data.draw(st.integers(0, len(message)))
        cut = data.draw(st.integers(0, 2))
        message[at : at + cut] = data.draw(
            st.binary(max_size=2) | st.sampled_from([b"n", b"u", b"t", b"K", b"O", b"N"])
        )
    corrupt = [bytes(message) for message in messages]
    by_row = outcome(lambda: decoded(corrupt, schema, BY_ROW, wire_columns=names))
    by_column = outcome(lambda: decoded(corrupt, schema, BY_COLUMN, wire_columns=names))
    assert by_row == by_column


@pytest.mark.parametrize("columnar_rows_min", [BY_ROW, BY_COLUMN])
class TestEitherWay:
    schema = schema_of(["id", "a", "b"], ["id"])

    def rows(self, *rows: Row, columnar_rows_min: int, schema: TableSchema | None = None) -> ChangeBatch:
        return decoded([XLOG_HEADER + row.encode() for row in rows], schema or self.schema, columnar_rows_min)

    def test_unchanged_value_is_taken_from_a_full_old_row(self, columnar_rows_min: int) -> None:
        row = Row(op=Op.UPDATE, old_image=OldImage.ROW, old=["1", "large", None], new=["1", UNCHANGED, "b"])
        batch = self.rows(row, columnar_rows_min=columnar_rows_min)
        assert batch.columns["a"].to_pylist() == ["large"]
        assert batch.presence == {}

    def test_unchanged_key_is_taken_from_the_old_key_and_nothing_else_is(self, columnar_rows_min: int) -> None:
        row = Row(op=Op.UPDATE, old_image=OldImage.KEY, old=["large", None, None], new=[UNCHANGED, UNCHANGED, "b"])
        batch = self.rows(row, columnar_rows_min=columnar_rows_min)
        assert batch.columns["id"].to_pylist() == ["large"]
        assert {name: states.tolist() for name, states in batch.presence.items()} == {"a": [UNCHANGED]}
        assert list(batch.old) == ["id"]

    def test_cells_beside_the_old_key_mean_nothing(self, columnar_rows_min: int) -> None:
        row = Row(op=Op.DELETE, old_image=OldImage.KEY, old=["1", "noise", None])
        full = Row(op=Op.DELETE, old_image=OldImage.ROW, old=["2", "a", "b"])
        batch = self.rows(row, full, columnar_rows_min=columnar_rows_min)
        assert {name: array.to_pylist() for name, array in batch.old.items()} == {
            "id": ["1", "2"],
            "a": [None, "a"],
            "b": [None, "b"],
        }

    def test_old_key_that_is_null_is_refused(self, columnar_rows_min: int) -> None:
        row = Row(op=Op.DELETE, old_image=OldImage.KEY, old=[None, "a", "b"])
        with pytest.raises(DecodeError, match=r"^old key: expected a value of key column 'id', got NULL$"):
            self.rows(row, columnar_rows_min=columnar_rows_min)

    def test_old_key_of_a_table_without_one_is_refused(self, columnar_rows_min: int) -> None:
        row = Row(op=Op.DELETE, old_image=OldImage.KEY, old=["1", None, None])
        with pytest.raises(DecodeError, match=r"^old key: expected .+, got 0 of them$"):
            self.rows(row, columnar_rows_min=columnar_rows_min, schema=schema_of(["id", "a", "b"], []))

    def test_split_character_is_refused_even_if_the_next_cell_completes_it(self, columnar_rows_min: int) -> None:
        first, second = (Row(op=Op.INSERT, new=[text, "", ""]).encode() for text in ("a?", "?b"))
        halves = [first.replace(b"?", b"\xc3"), second.replace(b"?", b"\xa4")]
        with pytest.raises(DecodeError, match="UTF-8"):
            decoded(halves, self.schema, columnar_rows_min, offset=0)

    def test_other_message_or_column_count_is_refused(self, columnar_rows_min: int) -> None:
        for message in (b"E", b"T" + bytes(5), b"", Row(op=Op.INSERT, new=["1", "2"]).encode()):
            with pytest.raises(DecodeError, match=r"expected .+, got .+ at offset \d+") as raised:
                decoded([message], self.schema, columnar_rows_min, offset=0)
            assert raised.value.table == "public.t"

    def test_message_cut_anywhere_or_longer_is_refused(self, columnar_rows_min: int) -> None:
        whole = Row(op=Op.UPDATE, old_image=OldImage.KEY, old=["1", None, None], new=["2", None, UNCHANGED]).encode()
        for spoiled in [*(whole[:length] for length in range(len(whole))), whole + b"n"]:
            for messages in ([spoiled], [spoiled, whole], [whole, spoiled]):
                with pytest.raises(DecodeError):
                    decoded(messages, self.schema, columnar_rows_min, offset=0)

    def test_table_without_columns_has_rows(self, columnar_rows_min: int) -> None:
        batch = self.rows(
            Row(op=Op.INSERT), Row(op=Op.INSERT), columnar_rows_min=columnar_rows_min, schema=schema_of([], [])
        )
        assert len(batch) == 2
        assert batch.columns == {}

    def test_batch_outlives_its_messages_and_takes_rows(self, columnar_rows_min: int) -> None:
        texts = [str(random.Random(n).random()) for n in range(100)]
        batch = self.rows(
            *(Row(op=Op.INSERT, new=[text, None, "é"]) for text in texts), columnar_rows_min=columnar_rows_min
        )
        assert batch.take(np.array([99, 0])).columns["id"].to_pylist() == [texts[99], texts[0]]


def test_run_beyond_arrows_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.postgres.columns.RUN_BYTES_MAX", 40)
    message = Row(op=Op.INSERT, new=["1"]).encode()
    for columnar_rows_min in (BY_ROW, BY_COLUMN):
        assert len(decoded([message] * 2, schema_of(["a"], []), columnar_rows_min, offset=0)) == 2
        with pytest.raises(DecodeError, match=r"^run of rows: expected at most 40 bytes, got 42$"):
            decoded([message] * 3, schema_of(["a"], []), columnar_rows_min, offset=0)
