"""What a batch is reduced to leaves the lake as its rows, one by one, would have."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from sink_batches import batch_of, update
from sink_programs import BAG, KEYED, BagSource, Key, KeyedSource, Row, programs

from sinks.postgres.bag import Columns, compact_bag
from sinks.postgres.compaction import Compacted, Rows, compact, normalize

Lake = dict[Key, tuple[Row, str | None]]
KEY = ("a", "b")

_seen: Counter[str] = Counter()


@pytest.mark.parametrize("deferred", [False, True], ids=["immediate key", "deferrable key"])
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(first=programs, second=programs)
def test_compacted_batches_come_to_what_their_rows_come_to(deferred, first, second):
    source = KeyedSource(deferred)
    lake: Lake = {}
    for program in (first, second):
        changes = source.run(program)
        if changes:
            compacted = compact(normalize(batch_of(KEYED, changes), KEY))
            lake = write(lake, compacted)
        assert lake == source.expected()
        for number, thing in enumerate(source.things):
            thing.mine = f"mine {number}"
        lake = source.expected()
    for kind in source.seen:
        event(kind)
    _seen.update(source.seen)


def test_the_programs_did_everything():
    test_compacted_batches_come_to_what_their_rows_come_to(False)
    test_compacted_batches_come_to_what_their_rows_come_to(True)
    assert _seen.keys() >= {"insert", "update", "move", "delete", "unchanged", "delete of a doubled key", "lift"}


@settings(max_examples=300, deadline=None)
@given(first=programs, second=programs)
def test_compacted_bags_come_to_what_their_rows_come_to(first, second):
    source = BagSource()
    lake: Counter[tuple[str | None, ...]] = Counter()
    for program in (first, second):
        changes = source.run(program)
        if changes:
            compacted = compact_bag(batch_of(BAG, changes))
            gone, added = as_rows(compacted.deletes) + as_rows(compacted.updates_old), as_rows(compacted.inserts)
            assert all(lake[row] >= count for row, count in Counter(gone).items())
            lake = lake - Counter(gone) + Counter(added + as_rows(compacted.updates))
        assert lake == Counter((row["note"], row["large"]) for row in source.rows)


@given(st.integers(1, 40))
def test_every_key_shifted_by_one_is_one_set_of_moves_that_meet(count):
    rows = [{"a": str(i), "b": "", "note": f"n{i}", "large": "l"} for i in range(count)]
    changes = [update({**row, "a": str(i + 1)}, row, whole=True) for i, row in enumerate(rows)]
    compacted = compact(normalize(batch_of(KEYED, changes), KEY))
    assert [len(part) for part in compacted.moves] == [count]
    assert compacted.moves_meet == (count > 1)
    assert not compacted.deletes
    assert compacted.upserts is None


def write(lake: Lake, compacted: Compacted) -> Lake:
    """Apply what is left of a batch the way the writer's statements do."""
    lake = dict(lake)
    for key in keys_of(compacted.deletes):
        lake.pop(key, None)
    lifted: Lake = {}
    for rows in compacted.moves:
        was = list(zip(*(column.to_pylist() for column in rows.old_key), strict=True))
        if compacted.moves_meet:
            _seen["lift"] += 1
        for old, row in zip(was, dicts(rows), strict=True):
            assert compacted.moves_meet or (row["a"], row["b"]) not in lake
            held, mine = lake.pop(old)
            lifted[row["a"], row["b"]] = held | row, mine
    assert not lifted.keys() & lake.keys()
    lake |= lifted
    for rows in compacted.patches:
        for row in dicts(rows):
            held, mine = lake[row["a"], row["b"]]
            lake[row["a"], row["b"]] = held | row, mine
    for row in dicts(compacted.upserts) if compacted.upserts else []:
        held, mine = lake.get((row["a"], row["b"]), ({}, None))
        lake[row["a"], row["b"]] = held | row, mine
    return lake


def keys_of(columns: Columns) -> list[Key]:
    return [tuple(row) for row in zip(*(columns[name].to_pylist() for name in KEY), strict=True)] if columns else []


def dicts(rows: Rows) -> list[Row]:
    return [
        dict(zip(rows.columns, row, strict=True))
        for row in zip(*(column.to_pylist() for column in rows.columns.values()), strict=True)
    ]


def as_rows(columns: Columns) -> list[tuple[str | None, ...]]:
    return list(zip(columns["note"].to_pylist(), columns["large"].to_pylist(), strict=True)) if columns else []
