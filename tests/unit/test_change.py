"""Batches keep every value and every absence through Arrow, and when rows are taken from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schema_strategies import names
from sink_batches import UNCHANGED, Change, batch_of, delete, insert, schema_of, truncate_of, update

from cdc.change import ChangeBatch, OldImage, Op, Presence
from cdc.schema import RowIdentity, TableSchema, Text

cells = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@st.composite
def batches(draw: st.DrawFn) -> ChangeBatch:
    """Return a batch under any column names, with rows of every kind."""
    columns = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    schema = schema_of("public.t", [(name, "text", Text()) for name in columns], key=columns[:1])

    def row(values: st.SearchStrategy[Any]) -> dict[str, Any]:
        return {name: draw(values) for name in columns}

    changes: list[Change] = []
    for _ in range(draw(st.integers(0, 6))):
        match draw(st.sampled_from(["insert", "update", "key", "row", "delete"])):
            case "insert":
                changes.append(Change(Op.INSERT, row(cells)))
            case "update":
                changes.append(update(row(cells | st.just(UNCHANGED))))
            case "key":
                changes.append(update(row(cells), {columns[0]: "old"}))
            case "row":
                changes.append(update(row(cells), row(cells), whole=True))
            case _:
                changes.append(delete({columns[0]: "old"}))
    return batch_of(schema, changes)


def plain(batch: ChangeBatch) -> dict[str, Any]:
    """Return a batch as lists, with the types that its contract names."""
    assert batch.ops.dtype == np.uint8
    assert batch.transactions.dtype == batch.ordinals.dtype == np.int64
    assert all(array.type == pa.string() for array in (*batch.columns.values(), *batch.old.values()))
    assert all(states.dtype == np.uint8 for states in batch.presence.values())
    assert batch.old_images is None or batch.old_images.dtype == np.uint8
    return {
        "schema": batch.schema,
        "mismatch": batch.mismatch,
        "ops": batch.ops.tolist(),
        "transactions": batch.transactions.tolist(),
        "ordinals": batch.ordinals.tolist(),
        "columns": {name: array.to_pylist() for name, array in batch.columns.items()},
        "presence": {name: states.tolist() for name, states in batch.presence.items()},
        "old": {name: array.to_pylist() for name, array in batch.old.items()},
        "old_images": None if batch.old_images is None else batch.old_images.tolist(),
    }


def picked(batch: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    """Return a plain batch's rows, chosen by plain indexing."""

    def pick(values: Any) -> Any:
        if isinstance(values, dict):
            return {name: pick(column) for name, column in values.items()}
        return [values[row] for row in rows] if isinstance(values, list) else values

    return {name: pick(values) for name, values in batch.items()}


def stored_and_read(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Send a record batch through Arrow's file format."""
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, batch.schema) as writer:
        writer.write_batch(batch)
    return pa.ipc.open_stream(stream.getvalue()).read_next_batch()


@settings(max_examples=60, deadline=None)
@given(batches())
def test_a_batch_is_the_same_after_arrow(batch: ChangeBatch) -> None:
    arrow = batch.to_arrow()
    arrow.validate(full=True)
    assert plain(ChangeBatch.from_arrow(arrow)) == plain(batch)
    assert plain(ChangeBatch.from_arrow(stored_and_read(arrow))) == plain(batch)


@settings(max_examples=60, deadline=None)
@given(batches(), st.data())
def test_rows_are_taken_with_all_that_belongs_to_them(batch: ChangeBatch, data: st.DataObject) -> None:
    size = len(batch)
    rows = data.draw(st.lists(st.integers(0, size - 1), max_size=8)) if size else []
    assert plain(batch.take(np.array(rows, np.int64))) == picked(plain(batch), rows)
    keep = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    kept = [row for row in range(size) if keep[row]]
    assert plain(batch.filter(np.array(keep, np.bool_))) == picked(plain(batch), kept)


def test_a_truncate_is_one_row_without_columns_before_and_after_arrow() -> None:
    batch = truncate_of(schema_of())
    again = ChangeBatch.from_arrow(stored_and_read(batch.to_arrow()))
    assert batch.is_truncate
    assert again.is_truncate
    assert plain(again) == plain(batch)
    assert len(again) == 1


def test_why_rows_do_not_fit_their_schema_stays_with_them() -> None:
    batch = replace(batch_of(schema_of(), [insert(id="1"), insert(id="2")]), mismatch="its columns changed")
    assert ChangeBatch.from_arrow(stored_and_read(batch.to_arrow())).mismatch == "its columns changed"
    assert batch.filter(np.array([True, False])).mismatch == "its columns changed"


def test_rows_of_other_kinds_are_no_truncate() -> None:
    schema = schema_of()
    assert not batch_of(schema, []).is_truncate
    assert not batch_of(schema, [insert(id="1")]).is_truncate
    assert not batch_of(schema, [insert(id="1"), delete({"id": "1"})]).is_truncate


def test_null_unchanged_and_not_sent_stay_apart() -> None:
    schema: TableSchema = schema_of("public.t", [(name, "text", Text()) for name in ("id", "a", "b")])
    whole = batch_of(schema, [update({"id": "1", "a": UNCHANGED, "b": None})])
    sent = ChangeBatch(
        schema,
        whole.ops,
        whole.transactions,
        whole.ordinals,
        columns={name: whole.columns[name] for name in ("id", "a")},
        presence={**whole.presence, "id": np.array([Presence.NOT_SENT], np.uint8)},
        old={},
    )
    again = ChangeBatch.from_arrow(sent.to_arrow())
    assert "b" not in again.columns, "never sent"
    assert again.presence["a"].tolist() == [Presence.UNCHANGED]
    assert again.presence["id"].tolist() == [Presence.NOT_SENT]
    assert again.columns["a"].to_pylist() == [None]


@pytest.mark.parametrize("name", ["op", "new:op", "old:x", "presence:x", "old_image", "ordinal", "table", ""])
def test_a_column_may_be_named_like_one_of_ours(name: str) -> None:
    schema = schema_of("public.t", [("id", "text", Text()), (name, "text", Text())], identity=RowIdentity.KEY)
    batch = batch_of(schema, [update({"id": "1", name: UNCHANGED}, {"id": "0", name: "before"}, whole=True)])
    assert plain(ChangeBatch.from_arrow(batch.to_arrow())) == plain(batch)


def test_the_letters_of_the_operations_are_the_fields_usual_ones() -> None:
    assert {op.name: chr(op) for op in Op} == {
        "INSERT": "c",
        "UPDATE": "u",
        "DELETE": "d",
        "SNAPSHOT": "r",
        "TRUNCATE": "t",
    }
    assert [chr(image) for image in OldImage if image] == ["K", "O"]
