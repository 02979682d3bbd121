"""What of a group reaches the lake, and which tables it stops."""

from __future__ import annotations

from dataclasses import replace

import pytest
from engine_parts import ITEMS, LAKE, ORDERS, ListLane, MarkUpTo, group_at

from cdc.contracts import TableState
from cdc.errors import ApplyRefusedError, DataError, DecodeError, FencedError, SinkUnavailableError
from cdc.schema import TableId
from cdc.topology import Placement, Stages

BOTH = {ORDERS: [0], ITEMS: [0]}


def placed(**states: TableState) -> dict[TableId, Placement]:
    """Return both tables streaming, unless ``states`` says otherwise by name."""
    return {table: Placement(LAKE[table], states.get(table.name, TableState.STREAMING)) for table in (ORDERS, ITEMS)}


def marked(mark: MarkUpTo) -> dict[TableId, Placement]:
    return {**placed(), ORDERS: Placement(LAKE[ORDERS], TableState.STREAMING, mark)}


def test_streaming_tables_are_written_to_their_places() -> None:
    lane = ListLane()
    applied = Stages(lane).apply(group_at(7, BOTH), placed())
    (written,) = lane.written
    assert written.rows == {LAKE[ORDERS]: ["0"], LAKE[ITEMS]: ["0"]}
    assert applied.targets == LAKE
    assert applied.failed == {}


@pytest.mark.parametrize("state", [TableState.PENDING, TableState.COPYING, TableState.FAILED])
def test_a_table_that_does_not_stream_is_left_out(state: TableState) -> None:
    lane = ListLane()
    Stages(lane).apply(group_at(7, BOTH), placed(items=state))
    assert lane.written[0].rows.keys() == {LAKE[ORDERS]}


def test_a_table_without_a_place_is_left_out_and_the_position_is_written_all_the_same() -> None:
    lane = ListLane()
    Stages(lane).apply(group_at(7, BOTH), {})
    assert (lane.written[0].rows, lane.written[0].position) == ({}, '{"n": 7}')


def test_what_a_copy_already_holds_is_left_out() -> None:
    lane = ListLane()
    group = group_at(7, {ORDERS: [0, 1, 2, 2], ITEMS: [0, 1]}, xids=[5, 6, 7])
    applied = Stages(lane).apply(group, marked(MarkUpTo(covered=6, passed_at=9)))
    assert lane.written[0].rows == {LAKE[ORDERS]: ["2", "2"], LAKE[ITEMS]: ["0", "1"]}
    assert lane.written[0].passed == []
    assert applied.tally[ORDERS][ord("c")] == 2, "only what is written counts"


def test_a_copy_that_holds_all_of_it_gets_no_batch() -> None:
    lane = ListLane()
    Stages(lane).apply(group_at(7, {ORDERS: [0, 1]}, xids=[5, 6]), marked(MarkUpTo(covered=6, passed_at=7)))
    assert lane.written[0].rows == {}
    assert lane.written[0].passed == [ORDERS]


@pytest.mark.parametrize(("covered", "stopped"), [(6, False), (5, True)])
def test_rows_of_another_shape_stop_their_table_unless_the_copy_holds_them(covered: int, stopped: bool) -> None:
    lane = ListLane()
    group = group_at(7, {ORDERS: [0, 1], ITEMS: [2]}, xids=[5, 6, 7])
    misfits = [replace(b, mismatch="its columns changed" * (b.schema.table == ORDERS)) for b in group.read(LAKE)]
    group = replace(group, read=lambda tables: (b for b in misfits if b.schema.table in tables))
    applied = Stages(lane).apply(group, marked(MarkUpTo(covered=covered, passed_at=9)))
    assert applied.failed == ({ORDERS: "its columns changed"} if stopped else {})
    assert lane.written[0].rows == {LAKE[ITEMS]: ["2"]}


def test_a_watermark_is_passed_with_the_group_that_reaches_it_and_still_counts_for_it() -> None:
    lane = ListLane()
    mark = MarkUpTo(covered=6, passed_at=7)
    Stages(lane).apply(group_at(7, {ORDERS: [0, 1]}, xids=[6, 7]), marked(mark))
    assert lane.written[0].passed == [ORDERS]
    assert lane.written[0].rows == {LAKE[ORDERS]: ["1"]}


def test_a_watermark_of_a_table_that_the_group_does_not_touch_is_not_asked() -> None:
    lane = ListLane()
    Stages(lane).apply(group_at(7, {ITEMS: [0]}), marked(MarkUpTo(covered=6, passed_at=7)))
    assert lane.written[0].passed == []


@pytest.mark.parametrize("kind", [ApplyRefusedError, DecodeError, DataError])
def test_a_refused_table_is_left_out_and_marked_and_the_rest_is_written(kind: type[DataError]) -> None:
    lane = ListLane(refused={ITEMS: kind("items: expected better rows", table=str(ITEMS))})
    stages = Stages(lane)
    applied = stages.apply(group_at(7, BOTH), placed())
    assert lane.attempts == 2
    (written,) = lane.written
    assert written.rows == {LAKE[ORDERS]: ["0"]}
    assert written.failed == {ITEMS: "items: expected better rows"}
    assert applied.failed == written.failed
    assert stages.failures == {}, "the group that says so is durable"


def test_several_tables_may_be_refused_one_after_the_other() -> None:
    errors = {table: ApplyRefusedError(table.name, table=str(table)) for table in (ORDERS, ITEMS)}
    lane = ListLane(refused=errors)
    Stages(lane).apply(group_at(7, BOTH), placed())
    assert lane.attempts == 3
    assert lane.written[0].rows == {}
    assert lane.written[0].failed == {ORDERS: "orders", ITEMS: "items"}


def test_rows_that_cannot_be_read_stop_their_table_only() -> None:
    lane = ListLane()
    error = DecodeError("row: expected better bytes", table=str(ITEMS))
    Stages(lane).apply(group_at(7, BOTH, broken={ITEMS: error}), placed())
    assert lane.written[0].rows == {LAKE[ORDERS]: ["0"]}
    assert lane.written[0].failed == {ITEMS: "row: expected better bytes"}


@pytest.mark.parametrize("dotted", [TableId("a.b", "c"), TableId("a", "b.c"), TableId("", "c")])
def test_a_table_with_a_dot_in_its_name_is_blamed_too(dotted: TableId) -> None:
    lane = ListLane(refused={dotted: ApplyRefusedError("no", table=str(dotted))})
    places = {**placed(), dotted: Placement(TableId("lake", "c"), TableState.STREAMING)}
    Stages(lane).apply(group_at(7, {ORDERS: [0], dotted: [0]}), places)
    assert lane.written[0].failed == {dotted: "no"}
    assert lane.written[0].rows == {LAKE[ORDERS]: ["0"]}


@pytest.mark.parametrize("table", [None, "public.unknown", "nonsense", str(LAKE[ITEMS])])
def test_an_error_that_blames_no_table_of_the_group_is_raised(table: str | None) -> None:
    lane = ListLane(troubles=[DataError("who was it", table=table)])
    with pytest.raises(DataError, match="who was it"):
        Stages(lane).apply(group_at(7, BOTH), placed())
    assert lane.written == []


def test_an_error_that_blames_a_table_left_out_before_is_raised_and_no_endless_loop() -> None:
    error = ApplyRefusedError("items again", table=str(ITEMS))
    lane = ListLane(troubles=[error, error])
    with pytest.raises(ApplyRefusedError, match="items again"):
        Stages(lane).apply(group_at(7, BOTH), placed())
    assert lane.attempts == 2


def test_other_errors_pass_and_what_failed_before_is_not_forgotten() -> None:
    lane = ListLane(troubles=[SinkUnavailableError("gone")], refused={ITEMS: ApplyRefusedError("no", table=str(ITEMS))})
    stages = Stages(lane)
    with pytest.raises(SinkUnavailableError):
        stages.apply(group_at(7, BOTH), placed())
    applied = stages.apply(group_at(7, BOTH), placed())
    assert applied.failed == {ITEMS: "no"}
    assert lane.attempts == 3, "the refused table is not tried again"


def test_an_error_that_a_person_must_see_passes() -> None:
    lane = ListLane(troubles=[FencedError("another engine", hint="stop it")])
    with pytest.raises(FencedError):
        Stages(lane).apply(group_at(7, BOTH), placed())
