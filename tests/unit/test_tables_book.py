"""Every table's state, moved by several threads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from threading import Condition, Event, Thread

import pytest
from engine_parts import ITEMS, LAKE, ORDERS, ListLane, MarkUpTo, group_at
from sink_batches import schema_of

from cdc.contracts import TableCopy, TableProgress, TableState
from cdc.engine.tables import TableBook
from cdc.schema import Int, TableId, TableSchema
from cdc.topology import Stages

LONG_SECONDS = 20.0
SCHEMAS: Mapping[TableId, TableSchema] = {table: replace(schema_of(), table=table) for table in (ORDERS, ITEMS)}
MARK = MarkUpTo(covered=6, passed_at=7)
STREAMING = TableProgress(target=LAKE[ORDERS], state=TableState.STREAMING, schema=SCHEMAS[ORDERS])


def book(stored: Mapping[TableId, TableProgress] | None = None) -> TableBook:
    """Return a book of both tables."""
    tables = TableBook()
    tables.load(SCHEMAS, LAKE, stored or {}, MarkUpTo.parse)
    return tables


def copy_of(table: TableId, mark: MarkUpTo) -> TableCopy:
    return TableCopy(SCHEMAS[table], mark, iter(()), membership=f"of {table.name}")


def streaming_book(mark: MarkUpTo = MARK) -> TableBook:
    tables = book()
    for table in LAKE:
        tables.start_copy(table)
        tables.copied(copy_of(table, mark), 5)
    return tables


def states(tables: TableBook) -> dict[TableId, TableState]:
    return {table: place.state for table, place in tables.placements().items()}


class TestLoad:
    def test_tables_that_the_lake_does_not_know_are_pending(self) -> None:
        assert states(book()) == dict.fromkeys(LAKE, TableState.PENDING)

    def test_a_copy_that_follows_the_source_goes_on_with_its_watermark(self) -> None:
        tables = book({ORDERS: replace(STREAMING, watermark=MARK.token())})
        place = tables.placements()[ORDERS]
        assert (place.target, place.state, place.watermark) == (LAKE[ORDERS], TableState.STREAMING, MARK)

    @pytest.mark.parametrize("token", [None, ""])
    def test_a_copy_whose_watermark_was_passed_goes_on_without(self, token: str | None) -> None:
        place = book({ORDERS: replace(STREAMING, watermark=token)}).placements()[ORDERS]
        assert (place.state, place.watermark) == (TableState.STREAMING, None)

    @pytest.mark.parametrize("state", [TableState.PENDING, TableState.COPYING, TableState.FAILED])
    def test_any_other_state_starts_again(self, state: TableState) -> None:
        tables = TableBook()
        stored = {ORDERS: replace(STREAMING, state=state, reason="broken", watermark=MARK.token())}
        assert tables.load(SCHEMAS, LAKE, stored, MarkUpTo.parse) == []
        place = tables.placements()[ORDERS]
        assert (place.state, place.watermark) == (TableState.PENDING, None)

    @pytest.mark.parametrize(
        "change",
        [
            {"schema": None},
            {"schema": schema_of("public.orders", [("id", "bigint", Int(64))])},
            {"target": TableId("elsewhere", "orders")},
        ],
    )
    def test_a_copy_that_no_longer_fits_is_named_and_starts_again(self, change: dict[str, object]) -> None:
        tables = TableBook()
        again = tables.load(SCHEMAS, LAKE, {ORDERS: replace(STREAMING, **change)}, MarkUpTo.parse)
        assert [table for table, _ in again] == [ORDERS]
        assert all(reason for _, reason in again)
        assert states(tables)[ORDERS] is TableState.PENDING

    def test_tables_that_are_not_selected_any_more_are_forgotten(self) -> None:
        tables = book()
        tables.load(SCHEMAS, {ITEMS: LAKE[ITEMS]}, {ORDERS: STREAMING}, MarkUpTo.parse)
        assert tables.names() == [ITEMS]

    def test_counts_outlive_a_new_start(self) -> None:
        tables = streaming_book()
        tables.load(SCHEMAS, LAKE, {ORDERS: STREAMING}, MarkUpTo.parse)
        (items, orders) = tables.status()
        assert (orders.copied_rows, orders.changes["r"]) == (5, 5)
        assert (items.state, items.copied_rows) == (TableState.PENDING, 5)


class TestStates:
    def test_a_copy_keeps_its_membership_over_a_restart(self) -> None:
        tables = streaming_book()
        assert tables.memberships() == {ITEMS: "of items", ORDERS: "of orders"}
        tables.load(SCHEMAS, LAKE, {ORDERS: replace(STREAMING, membership="of orders")}, MarkUpTo.parse)
        assert tables.memberships() == {ORDERS: "of orders"}

    def test_a_copy_goes_from_pending_over_copying_to_streaming(self) -> None:
        tables = book()
        assert tables.start_copy(ORDERS) == (SCHEMAS[ORDERS], LAKE[ORDERS])
        assert states(tables)[ORDERS] is TableState.COPYING
        tables.copied(copy_of(ORDERS, MARK), 5)
        place = tables.placements()[ORDERS]
        assert (place.state, place.watermark) == (TableState.STREAMING, MARK)
        (_, status) = tables.status()
        assert (status.copied_rows, status.changes["r"]) == (5, 5)

    def test_an_interrupted_copy_is_pending_again(self) -> None:
        tables = book()
        tables.start_copy(ORDERS)
        tables.postpone(ORDERS)
        assert states(tables)[ORDERS] is TableState.PENDING

    def test_a_streaming_table_that_starts_again_loses_its_watermark(self) -> None:
        tables = streaming_book()
        tables.postpone(ORDERS)
        assert tables.placements()[ORDERS].watermark is None

    def test_a_failed_table_says_why_until_it_starts_again(self) -> None:
        tables = book()
        tables.fail(ORDERS, "no room")
        (_, status) = tables.status()
        assert (status.state, status.reason) == (TableState.FAILED, "no room")
        tables.start_copy(ORDERS)
        assert tables.status()[1].reason == ""

    def test_names_are_in_order_and_by_state(self) -> None:
        tables = book()
        tables.add(replace(schema_of(), table=TableId("a", "z")), TableId("lake", "z"))
        tables.fail(ITEMS, "no room")
        assert tables.names() == [TableId("a", "z"), ITEMS, ORDERS]
        assert tables.names(TableState.FAILED) == [ITEMS]
        assert tables.names(TableState.PENDING, TableState.FAILED) == tables.names()
        assert tables.names(TableState.STREAMING) == []

    def test_changed_columns_are_named_for_streaming_tables_only(self) -> None:
        tables = streaming_book()
        now = schema_of("public.orders", [("id", "bigint", Int(64)), ("added", "integer", Int(32))])
        both = {ORDERS: now, ITEMS: replace(now, table=ITEMS)}
        tables.postpone(ITEMS)
        assert tables.changed(both) == {ORDERS: "added added; dropped note; changed id"}
        assert tables.changed(SCHEMAS) == {}
        assert tables.changed({}) == {}

    def test_what_was_given_out_does_not_change_afterwards(self) -> None:
        tables = book()
        before, status = tables.placements(), tables.status()
        tables.fail(ORDERS, "no room")
        assert before[ORDERS].state is TableState.PENDING
        assert status[1].state is TableState.PENDING


class TestApplied:
    def test_rows_that_were_written_are_counted_by_kind(self) -> None:
        tables = streaming_book(MarkUpTo(covered=0, passed_at=99))
        stages = Stages(ListLane())
        for number in (7, 8):
            tables.applied(stages.apply(group_at(number, {ORDERS: [0, 0]}), tables.placements()))
        assert tables.status()[1].changes == {"c": 4, "u": 0, "d": 0, "r": 5, "t": 0}

    def test_a_watermark_that_was_passed_is_dropped(self) -> None:
        tables = streaming_book()
        stages = Stages(ListLane())
        tables.applied(stages.apply(group_at(6), tables.placements()))
        assert tables.placements()[ORDERS].watermark is MARK
        tables.applied(stages.apply(group_at(7), tables.placements()))
        assert tables.placements()[ORDERS].watermark is None
        assert tables.placements()[ITEMS].watermark is MARK, "the group didn't touch it"

    def test_the_watermark_of_a_copy_that_was_made_meanwhile_stays(self) -> None:
        tables = streaming_book()
        applied = Stages(ListLane()).apply(group_at(7), tables.placements())
        tables.postpone(ORDERS)
        tables.start_copy(ORDERS)
        newer = MarkUpTo(covered=9, passed_at=9)
        tables.copied(copy_of(ORDERS, newer), 5)
        tables.applied(applied)
        assert tables.placements()[ORDERS].watermark is newer


class AnnouncedCondition(Condition):
    """Says when somebody waits."""

    someone_waits = Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.someone_waits.set()
        return super().wait(LONG_SECONDS)


class TestAwaitCopies:
    def test_tables_that_are_not_on_their_way_are_not_waited_for(self) -> None:
        tables = streaming_book()
        tables.fail(ITEMS, "no room")
        assert tables.await_copies([ORDERS, ITEMS, TableId("public", "unknown")], lambda: False)
        tables.postpone(ITEMS)
        assert tables.await_copies([ORDERS], lambda: False)

    @pytest.mark.parametrize("copying", [False, True])
    def test_waiting_can_be_given_up(self, copying: bool) -> None:
        tables = book()
        if copying:
            tables.start_copy(ORDERS)
        assert not tables.await_copies([ORDERS], lambda: True)

    @pytest.mark.parametrize("end", ["copied", "failed", "dropped"])
    def test_the_end_of_a_copy_ends_the_waiting_at_once(self, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cdc.engine.tables.Condition", AnnouncedCondition)
        monkeypatch.setattr(AnnouncedCondition, "someone_waits", Event())
        tables = book()
        tables.start_copy(ORDERS)
        outcome: list[bool] = []
        thread = Thread(target=lambda: outcome.append(tables.await_copies([ORDERS], lambda: False)), daemon=True)
        thread.start()
        assert AnnouncedCondition.someone_waits.wait(LONG_SECONDS)
        if end == "copied":
            tables.copied(copy_of(ORDERS, MARK), 1)
        elif end == "failed":
            tables.fail(ORDERS, "no room")
        else:
            tables.load(SCHEMAS, {}, {}, MarkUpTo.parse)
        thread.join(LONG_SECONDS / 2)
        assert outcome == [True]
