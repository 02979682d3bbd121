"""Transactions in every way in which they arrive, frame by frame."""

from __future__ import annotations

import numpy as np
import pgoutput_frames as sent
import pytest
from assembler_feed import (
    ITEMS,
    ORDERS,
    SECRETS,
    START_US,
    TABLES,
    WANTED,
    Seen,
    assembler_from,
    group_from,
    position,
    relations,
    rows_by_table,
    taken,
    transaction,
)

from cdc.change import Op
from cdc.contracts import LakeGroup
from cdc.errors import DecodeError, SchemaChangedError
from cdc.group import CommitGroup
from connectors.postgres import assembler as assembler_module
from connectors.postgres import pieces as pieces_module
from connectors.postgres.assembler import Assembler
from connectors.postgres.frames import Keepalive

THE_ORDERS, THE_ITEMS = WANTED[ORDERS], WANTED[ITEMS]


def inserted(oid: int, *names: str, subxid: int | None = None) -> list[bytes]:
    return [sent.insert(oid, name, "note", subxid=subxid) for name in names]


def segment(xid: int, *frames: bytes) -> list[bytes]:
    return [sent.stream_start(xid), *frames, sent.stream_stop()]


def stream_commit(xid: int, *, at: int) -> bytes:
    return sent.stream_commit(xid, commit_lsn=at, end_lsn=at + 50, time_us=START_US + xid)


def prepared(xid: int, gid: str, *frames: bytes, at: int) -> list[bytes]:
    return [
        sent.begin_prepare(xid, gid, prepare_lsn=at, end_lsn=at + 50, time_us=START_US),
        *frames,
        sent.prepare(xid, gid, prepare_lsn=at, end_lsn=at + 50, time_us=START_US),
    ]


def commit_prepared(xid: int, gid: str, *, at: int) -> bytes:
    return sent.commit_prepared(xid, gid, commit_lsn=at, end_lsn=at + 50, time_us=START_US + xid)


def rollback_prepared(xid: int, gid: str, *, at: int) -> bytes:
    return sent.rollback_prepared(xid, gid, prepare_end_lsn=at - 100, end_lsn=at + 50, time_us=START_US + xid)


def names_in(*groups: CommitGroup) -> dict[str, list[str | None]]:
    """Return the first cell of every row, or TRUNCATE, by table."""
    return {
        table.name: [row.cells[0] if row.cells else "TRUNCATE" for row in rows]
        for table, rows in rows_by_table(groups).items()
    }


def known() -> Assembler:
    """Return an assembler that knows all tables."""
    assembler = assembler_from()
    assembler.feed(relations())
    return assembler


class TestPlainTransactions:
    def test_rows_come_with_their_transaction_and_ordinal(self) -> None:
        rows = [sent.insert(ORDERS, "a", "1"), sent.insert(ITEMS, "x", "2"), sent.update(ORDERS, "a", "3")]
        group = group_from(*transaction(7, *rows), *transaction(9, sent.delete(ORDERS, "a", None)))
        assert rows_by_table([group]) == {
            THE_ORDERS: [
                Seen(Op.INSERT, ("a", "1"), 7, 0),
                Seen(Op.UPDATE, ("a", "3"), 7, 2),
                Seen(Op.DELETE, ("a",), 9, 0),
            ],
            THE_ITEMS: [Seen(Op.INSERT, ("x", "2"), 7, 1)],
        }

    def test_group_says_what_it_holds(self) -> None:
        frames = [*transaction(7, *inserted(ORDERS, "a", "b")), *transaction(9, *inserted(ORDERS, "c"))]
        group = group_from(*frames)
        assert group.source == "shop"
        assert group.position == position(950)
        assert group.transactions.ids.tolist() == [7, 9]
        assert group.transactions.commit_times_us.tolist() == [START_US + 7, START_US + 9]
        assert group.transactions.ids.dtype == group.transactions.commit_times_us.dtype == np.int64
        assert group.tables == {THE_ORDERS}
        assert group.row_count == 3
        assert group.size_bytes == sum(map(len, inserted(ORDERS, "a", "b", "c")))

    def test_group_is_read_table_by_table_and_again(self) -> None:
        group = group_from(*transaction(7, *inserted(ORDERS, "a"), *inserted(ITEMS, "x")))
        assert group.tables == TABLES
        assert set(rows_by_table([group], {THE_ITEMS})) == {THE_ITEMS}
        assert rows_by_table([group], ()) == {}
        assert rows_by_table([group]) == rows_by_table([group])

    def test_rows_of_an_unwanted_table_only_count_in_the_ordinals(self) -> None:
        rows = [*inserted(ORDERS, "a"), *inserted(SECRETS, "s"), *inserted(ORDERS, "b")]
        group = group_from(*transaction(7, *rows))
        assert [row.ordinal for row in rows_by_table([group])[THE_ORDERS]] == [0, 2]
        assert group.row_count == 2
        assert group.tables == {THE_ORDERS}

    def test_transactions_without_wanted_rows_leave_no_trace_but_what_was_received(self) -> None:
        assembler = known()
        assembler.feed([*transaction(7), *transaction(8, *inserted(SECRETS, "s"))])
        assert taken(assembler) == []
        assert assembler.received_lsn == 850
        assert assembler.is_idle

    def test_transactions_before_the_start_are_left_out_and_the_one_that_follows_is_not(self) -> None:
        assembler = assembler_from(850)
        frames = [*transaction(8, *inserted(ORDERS, "old")), *transaction(9, *inserted(ORDERS, "new"), commit_lsn=850)]
        assembler.feed([*relations(), *frames])
        (group,) = taken(assembler)
        assert names_in(group) == {"orders": ["new"]}
        assert group.transactions.ids.tolist() == [9]
        assert group.row_count == 1

    def test_other_messages_change_nothing(self) -> None:
        rows = [sent.origin("elsewhere"), *inserted(ORDERS, "a"), sent.logical_message(b"x"), *inserted(ORDERS, "b")]
        assert names_in(group_from(*transaction(7, *rows))) == {"orders": ["a", "b"]}

    def test_rows_that_arrive_one_by_one_give_the_same_group(self) -> None:
        frames = [*relations(), *transaction(7, *inserted(ORDERS, *"abc"), *inserted(ITEMS, "x")), *transaction(8)]
        assembler = assembler_from()
        for frame in frames:
            assembler.feed([frame])
        groups = taken(assembler)
        assert rows_by_table(groups) == rows_by_table([group_from(*frames)])


class TestTruncates:
    def test_truncate_stands_between_the_rows_before_and_after_it(self) -> None:
        rows = [
            *inserted(ORDERS, "a"),
            *inserted(ITEMS, "x"),
            sent.truncate(ORDERS, SECRETS, ITEMS),
            *inserted(ORDERS, "b"),
            sent.truncate(ORDERS),
            sent.truncate(ORDERS),
            *inserted(ITEMS, "y"),
        ]
        group = group_from(*transaction(7, *rows))
        assert names_in(group) == {
            "orders": ["a", "TRUNCATE", "b", "TRUNCATE", "TRUNCATE"],
            "items": ["x", "TRUNCATE", "y"],
        }
        assert [row.ordinal for row in rows_by_table([group])[THE_ORDERS]] == [0, 2, 3, 4, 5]
        assert group.row_count == 8

    def test_every_truncate_is_a_batch_of_its_own_without_columns(self) -> None:
        group = group_from(*transaction(7, sent.truncate(ORDERS, ITEMS), sent.truncate(ORDERS)))
        batches = list(group.read(TABLES))
        assert [batch.is_truncate for batch in batches] == [True] * 3
        assert all(not batch.columns for batch in batches)

    def test_a_transaction_that_only_truncates_is_a_group(self) -> None:
        group = group_from(*transaction(7, sent.truncate(ITEMS)))
        assert (group.tables, group.row_count) == ({THE_ITEMS}, 1)

    def test_truncate_of_unwanted_tables_is_nothing(self) -> None:
        assembler = known()
        assembler.feed(transaction(7, sent.truncate(SECRETS, 99)))
        assert taken(assembler) == []


class TestRelations:
    def test_relation_that_is_sent_again_changes_nothing(self) -> None:
        rows = [*inserted(ORDERS, "a"), *relations(ORDERS), *inserted(ORDERS, "b")]
        assert names_in(group_from(*transaction(7, *rows))) == {"orders": ["a", "b"]}

    def test_rows_that_do_not_fit_stop_their_table_only_and_only_where_it_is_read(self) -> None:
        changed = sent.relation(ORDERS, "orders", ["id", "note", "added"])
        rows = [*inserted(ORDERS, "a"), changed, sent.insert(ORDERS, "b", "note", "new"), *inserted(ITEMS, "x")]
        group = group_from(*transaction(7, *rows))
        assert rows_by_table([group], {THE_ITEMS}).keys() == {THE_ITEMS}
        (misfit,) = [batch for batch in group.read(TABLES) if batch.mismatch]
        assert "columns changed" in misfit.mismatch
        assert (misfit.schema.table, len(misfit), dict(misfit.columns)) == (THE_ORDERS, 1, {})
        routed = LakeGroup(group=group, targets={THE_ORDERS: THE_ORDERS, THE_ITEMS: THE_ITEMS})
        with pytest.raises(SchemaChangedError, match="columns changed") as raised:
            list(routed.batches())
        assert raised.value.table == "public.orders"
        assert list(group.read({THE_ITEMS}))

    def test_a_change_that_no_row_follows_stops_nothing(self) -> None:
        rows = [*inserted(ORDERS, "a"), sent.relation(ORDERS, "orders", ["id"])]
        assert names_in(group_from(*transaction(7, *rows))) == {"orders": ["a"]}

    def test_row_of_a_relation_that_was_never_described_is_refused(self) -> None:
        with pytest.raises(DecodeError, match=r"^row message: expected a relation described before, got oid 16385$"):
            assembler_from().feed(transaction(7, *inserted(ORDERS, "a")))

    def test_rows_that_cannot_be_decoded_name_their_table_when_they_are_read(self) -> None:
        group = group_from(*transaction(7, sent.insert(ORDERS, "a"), *inserted(ITEMS, "x")))
        with pytest.raises(DecodeError) as raised:
            list(group.read(TABLES))
        assert raised.value.table == "public.orders"
        assert names_in_items(group) == ["x"]


def names_in_items(group: CommitGroup) -> list[str | None]:
    return [row.cells[0] for row in rows_by_table([group], {THE_ITEMS})[THE_ITEMS]]


class TestStreamedTransactions:
    def test_interleaved_transactions_come_in_the_order_of_their_commits(self) -> None:
        assembler = assembler_from()
        assembler.feed(
            [
                *segment(5, *relations(subxid=5), *inserted(ORDERS, "a", subxid=5)),
                *segment(6, *inserted(ORDERS, "p", subxid=6)),
                *transaction(7, *inserted(ORDERS, "plain")),
                *segment(5, *inserted(ORDERS, "b", subxid=5), *inserted(ITEMS, "x", subxid=5)),
                *segment(6, *inserted(ORDERS, "q", subxid=6)),
                stream_commit(6, at=800),
                *transaction(9, *inserted(ORDERS, "later"), commit_lsn=900),
                stream_commit(5, at=1000),
                *transaction(10, *inserted(ORDERS, "last"), commit_lsn=1100),
            ]
        )
        (group,) = taken(assembler)
        assert group.transactions.ids.tolist() == [7, 6, 9, 5, 10]
        assert group.position == position(1150)
        assert [(row.cells[0], row.xid, row.ordinal) for row in rows_by_table([group])[THE_ORDERS]] == [
            ("plain", 7, 0),
            ("p", 6, 0),
            ("q", 6, 1),
            ("later", 9, 0),
            ("a", 5, 0),
            ("b", 5, 1),
            ("last", 10, 0),
        ]
        assert rows_by_table([group])[THE_ITEMS] == [Seen(Op.INSERT, ("x", "note"), 5, 2)]

    @pytest.mark.parametrize("with_lsn", [False, True])
    def test_rows_of_an_aborted_subtransaction_vanish_and_the_others_keep_their_order(self, with_lsn: bool) -> None:
        assembler = assembler_from()
        assembler.feed(
            [
                *segment(
                    5,
                    *relations(subxid=5),
                    *inserted(ORDERS, "a", subxid=5),
                    *inserted(ORDERS, "b", subxid=51),
                    *inserted(ORDERS, "c", subxid=52),
                    sent.truncate(ITEMS, subxid=51),
                    *inserted(ITEMS, "x", subxid=52),
                    *inserted(ORDERS, "d", subxid=51),
                    *inserted(ORDERS, "e", subxid=5),
                ),
                sent.stream_abort(5, 51, with_lsn=with_lsn),
                *segment(5, *inserted(ORDERS, "f", subxid=52), *inserted(ORDERS, "g", subxid=5)),
                stream_commit(5, at=1000),
            ]
        )
        (group,) = taken(assembler)
        assert names_in(group) == {"orders": ["a", "c", "e", "f", "g"], "items": ["x"]}
        assert [row.ordinal for row in rows_by_table([group])[THE_ORDERS]] == [0, 2, 6, 7, 8]
        assert group.row_count == 6
        assert group.size_bytes == sum(map(len, inserted(ORDERS, *"acefgx", subxid=5)))

    def test_tables_that_only_an_aborted_subtransaction_wrote_to_are_not_in_the_group(self) -> None:
        assembler = known()
        rows = [*inserted(ORDERS, "a", subxid=5), *inserted(ITEMS, "x", subxid=51)]
        assembler.feed([*segment(5, *rows), sent.stream_abort(5, 51), stream_commit(5, at=1000)])
        (group,) = taken(assembler)
        assert group.tables == {THE_ORDERS}

    def test_a_transaction_whose_subtransactions_all_aborted_leaves_no_trace(self) -> None:
        assembler = known()
        assembler.feed([*segment(5, *inserted(ORDERS, "a", subxid=51)), sent.stream_abort(5, 51)])
        assert assembler.memory_bytes == 0
        assembler.feed([stream_commit(5, at=1000)])
        assert taken(assembler) == []
        assert assembler.received_lsn == 1050

    def test_an_aborted_transaction_vanishes_and_the_others_stay(self) -> None:
        assembler = known()
        assembler.feed([*segment(5, *inserted(ORDERS, "a", subxid=5)), *segment(6, *inserted(ORDERS, "b", subxid=6))])
        assembler.feed([sent.stream_abort(5, 5), sent.stream_abort(99, 99), stream_commit(6, at=1000)])
        assert names_in(*taken(assembler)) == {"orders": ["b"]}
        assert assembler.memory_bytes == 0

    def test_a_streamed_transaction_before_the_start_is_left_out(self) -> None:
        assembler = assembler_from(1050)
        assembler.feed([*relations(), *segment(5, *inserted(ORDERS, "old", subxid=5)), stream_commit(5, at=1000)])
        assembler.feed([*segment(6, *inserted(ORDERS, "new", subxid=6)), stream_commit(6, at=1050)])
        assert names_in(*taken(assembler)) == {"orders": ["new"]}

    def test_truncate_in_a_stream_stays_in_its_place(self) -> None:
        assembler = known()
        rows = [*inserted(ORDERS, "a", subxid=5), sent.truncate(ORDERS, subxid=5), *inserted(ORDERS, "b", subxid=51)]
        assembler.feed([*transaction(4, *inserted(ORDERS, "z")), *segment(5, *rows), stream_commit(5, at=1000)])
        (group,) = taken(assembler)
        assert names_in(group) == {"orders": ["z", "a", "TRUNCATE", "b"]}
        assert [row.xid for row in rows_by_table([group])[THE_ORDERS]] == [4, 5, 5, 5]

    def test_a_transaction_that_still_runs_holds_nothing_up(self) -> None:
        assembler = known()
        assembler.feed(segment(5, *inserted(ORDERS, "a", subxid=5)))
        assert assembler.is_idle
        assert assembler.oldest_commit_us is None
        assembler.feed([stream_commit(5, at=1000)])
        assert not assembler.is_idle
        assert assembler.oldest_commit_us == START_US + 5


class TestPreparedTransactions:
    @pytest.mark.parametrize("streamed", [False, True])
    def test_rows_come_when_the_prepared_transaction_commits(self, streamed: bool) -> None:
        assembler = known()
        if streamed:
            stream_prepare = sent.stream_prepare(5, "gid", prepare_lsn=500, end_lsn=550, time_us=START_US)
            assembler.feed([*segment(5, *inserted(ORDERS, "a", subxid=5)), stream_prepare])
        else:
            assembler.feed(prepared(5, "gid", *inserted(ORDERS, "a"), at=500))
        assembler.feed(transaction(7, *inserted(ORDERS, "b")))
        (before,) = taken(assembler)
        assert names_in(before) == {"orders": ["b"]}
        assembler.feed([commit_prepared(5, "gid", at=900)])
        (group,) = taken(assembler)
        assert rows_by_table([group]) == {THE_ORDERS: [Seen(Op.INSERT, ("a", "note"), 5, 0)]}
        assert group.position == position(950)
        assert group.transactions.commit_times_us.tolist() == [START_US + 5]

    @pytest.mark.parametrize("streamed", [False, True])
    def test_rows_of_a_prepared_transaction_that_is_rolled_back_vanish(self, streamed: bool) -> None:
        assembler = known()
        if streamed:
            stream_prepare = sent.stream_prepare(5, "gid", prepare_lsn=500, end_lsn=550, time_us=START_US)
            assembler.feed([*segment(5, *inserted(ORDERS, "a", subxid=5)), stream_prepare])
        else:
            assembler.feed(prepared(5, "gid", *inserted(ORDERS, "a"), at=500))
        assert assembler.memory_bytes > 0
        assembler.feed([rollback_prepared(5, "gid", at=700), rollback_prepared(6, "unknown", at=800)])
        assert taken(assembler) == []
        assert assembler.memory_bytes == 0
        assert assembler.hold_lsn is None

    def test_nothing_from_a_prepared_transaction_on_may_be_confirmed_until_it_is_durable(self) -> None:
        assembler = known()
        assembler.feed(prepared(5, "old", *inserted(ORDERS, "a"), at=500))
        assembler.feed(prepared(6, "new", *inserted(ORDERS, "b"), at=600))
        assert assembler.hold_lsn == 500
        assembler.feed([*transaction(7, *inserted(ORDERS, "c")), commit_prepared(5, "old", at=800)])
        taken(assembler)
        assembler.settle(750)
        assert assembler.hold_lsn == 500, "were more confirmed now, the server would not send the rows again"
        assembler.settle(850)
        assert assembler.hold_lsn == 600
        assembler.feed([rollback_prepared(6, "new", at=900)])
        assert assembler.hold_lsn is None

    def test_a_prepared_transaction_that_holds_nothing_wanted_is_held_until_its_end_only(self) -> None:
        assembler = known()
        assembler.feed(prepared(5, "gid", *inserted(SECRETS, "s"), at=500))
        assert assembler.hold_lsn == 500
        assembler.feed([commit_prepared(5, "gid", at=800)])
        assert assembler.hold_lsn is None
        assert assembler.is_idle

    def test_one_that_committed_before_the_start_is_left_out_whether_or_not_it_is_sent_again(self) -> None:
        assembler = assembler_from(850)
        assembler.feed([*relations(), *prepared(5, "sent", *inserted(ORDERS, "a"), at=500)])
        assembler.feed([commit_prepared(5, "sent", at=800), commit_prepared(6, "not sent", at=700)])
        assert taken(assembler) == []
        assert (assembler.hold_lsn, assembler.memory_bytes) == (None, 0)

    def test_one_that_was_prepared_before_the_start_and_commits_after_it_is_kept(self) -> None:
        assembler = assembler_from(850)
        assembler.feed([*relations(), *prepared(5, "gid", *inserted(ORDERS, "a"), at=500)])
        assembler.feed([commit_prepared(5, "gid", at=900)])
        assert names_in(*taken(assembler)) == {"orders": ["a"]}

    def test_a_name_is_used_again(self) -> None:
        assembler = known()
        for xid, name in ((5, "a"), (6, "b")):
            assembler.feed(prepared(xid, "gid", *inserted(ORDERS, name), at=xid * 100))
            assembler.feed([commit_prepared(xid, "gid", at=xid * 100 + 50)])
        assert names_in(*taken(assembler)) == {"orders": ["a", "b"]}

    def test_outcome_of_an_unknown_one_is_refused(self) -> None:
        with pytest.raises(DecodeError, match=r"^Commit Prepared: expected .+, got an unknown one$"):
            known().feed([commit_prepared(5, "gid", at=900)])


ROW = sent.insert(ORDERS, "a", "note")
IN_TRANSACTION, IN_STREAM = transaction(7, ROW)[:-1], segment(5)[:-1]
IN_PREPARED = prepared(8, "gid", ROW, at=800)[:-1]
OUT_OF_PLACE = {
    "row without a transaction": [ROW],
    "truncate without a transaction": [sent.truncate(ORDERS)],
    "commit without begin": transaction(7)[1:],
    "stream stop without start": [sent.stream_stop()],
    "prepare without begin": prepared(8, "gid", at=800)[1:],
    "stream of no transaction": segment(0),
    "frame of no kind": [b"x"],
    "empty frame": [b""],
    "frame without a message": [ROW[:25]],
    "message of no kind": [sent.framed(b"z")],
} | {
    f"{name} in {where}": [*opened, frame]
    for where, opened in (("a transaction", IN_TRANSACTION), ("a stream", IN_STREAM), ("a prepared one", IN_PREPARED))
    for name, frame in (
        ("begin", IN_TRANSACTION[0]),
        ("stream start", IN_STREAM[0]),
        ("begin prepare", IN_PREPARED[0]),
        ("stream commit", stream_commit(5, at=1000)),
        ("stream abort", sent.stream_abort(5, 5)),
        ("stream prepare", sent.stream_prepare(5, "gid", prepare_lsn=1, end_lsn=2, time_us=START_US)),
        ("commit prepared", commit_prepared(8, "gid", at=1000)),
        ("rollback prepared", rollback_prepared(8, "gid", at=1000)),
    )
}


@pytest.mark.parametrize("frames", OUT_OF_PLACE.values(), ids=OUT_OF_PLACE)
def test_message_out_of_place_is_refused(frames: list[bytes]) -> None:
    assembler = known()
    with pytest.raises(DecodeError, match=r"expected .+, got "):
        assembler.feed(frames)
    assembler.close()


class TestKeepalives:
    def test_the_last_keepalive_is_returned(self) -> None:
        frames = [sent.keepalive(100), *transaction(7), sent.keepalive(200, time_us=START_US, reply_requested=True)]
        expected = Keepalive(wal_end=200, server_time_us=START_US, reply_requested=True)
        assert known().feed([*frames, *transaction(8)]) == expected

    def test_without_one_there_is_none(self) -> None:
        assert known().feed(transaction(7)) is None
        assert known().feed([]) is None

    def test_one_in_the_middle_of_a_transaction_changes_nothing(self) -> None:
        first, second = inserted(ORDERS, "a", "b")
        assert names_in(group_from(*transaction(7, first, sent.keepalive(100), second))) == {"orders": ["a", "b"]}


class TestGroups:
    def test_seal_between_transactions_closes_the_group_at_once(self) -> None:
        assembler = known()
        assembler.feed(transaction(7, *inserted(ORDERS, "a")))
        assert assembler.peek() is None
        assembler.seal()
        group = assembler.peek()
        assert group is not None
        assert assembler.peek() is group, "looking takes nothing"
        assembler.pop()
        assembler.seal()
        assert assembler.peek() is None, "nothing is no group"

    def test_seal_in_a_transaction_closes_the_group_behind_it(self) -> None:
        assembler = known()
        first, second, third = (transaction(xid, *inserted(ORDERS, str(xid))) for xid in (7, 8, 9))
        assembler.feed([*first, *second[:-1]])
        assembler.seal()
        assert assembler.peek() is None
        assembler.feed([second[-1], *third])
        groups = taken(assembler)
        assert [group.transactions.ids.tolist() for group in groups] == [[7, 8], [9]]
        assert names_in(*groups) == {"orders": ["7", "8", "9"]}

    def test_each_group_counts_its_transactions_from_zero(self) -> None:
        assembler = known()
        assembler.feed([*transaction(7, ROW), *transaction(8, ROW)])
        assembler.seal()
        assembler.feed([*segment(9, *inserted(ORDERS, "a", subxid=9)), stream_commit(9, at=900)])
        for group, xids in zip(taken(assembler), ([7, 8], [9]), strict=True):
            (batch,) = group.read(TABLES)
            assert batch.transactions.tolist() == list(range(len(xids)))
            assert group.transactions.ids.tolist() == xids

    def test_groups_close_at_a_commit_once_they_are_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(assembler_module, "GROUP_BYTES", 2 * len(ROW))
        assembler = known()
        streamed = [*segment(6, *inserted(ORDERS, *"abc", subxid=6)), stream_commit(6, at=650)]
        assembler.feed(
            [*transaction(4, ROW), *transaction(5, ROW, ROW, ROW), *streamed, *transaction(7, ROW), *transaction(8)]
        )
        assert [group.transactions.ids.tolist() for group in taken(assembler)] == [[4, 5], [6], [7]]

    def test_positions_of_groups_grow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(assembler_module, "GROUP_BYTES", 1)
        assembler = known()
        assembler.feed([frame for xid in range(5, 10) for frame in transaction(xid, ROW)])
        assert [group.position for group in taken(assembler)] == [position(xid * 100 + 50) for xid in range(5, 10)]

    def test_the_oldest_commit_is_that_of_the_oldest_transaction_that_nobody_took(self) -> None:
        assembler = known()
        assert assembler.oldest_commit_us is None
        assembler.feed(transaction(7, ROW)[:1])
        assert assembler.oldest_commit_us == START_US + 7
        assembler.feed(transaction(7, ROW)[1:])
        assembler.seal()
        assembler.feed([*transaction(8, ROW), *transaction(9, ROW)[:2]])
        assert assembler.oldest_commit_us == START_US + 7
        assembler.pop()
        assert assembler.oldest_commit_us == START_US + 8

    def test_a_transaction_that_was_applied_before_is_not_old(self) -> None:
        assembler = assembler_from(850)
        assembler.feed([*relations(), *transaction(8, ROW)[:2]])
        assert assembler.oldest_commit_us is None
        assert not assembler.is_idle

    def test_it_is_idle_only_when_no_commit_waits(self) -> None:
        assembler = known()
        assert assembler.is_idle
        for frame in transaction(7, ROW):
            assembler.feed([frame])
            assert not assembler.is_idle
        assembler.seal()
        assert not assembler.is_idle
        assembler.pop()
        assert assembler.is_idle
        opened, *rest = prepared(8, "gid", ROW, at=800)
        assembler.feed([opened])
        assert not assembler.is_idle, "its PREPARE isn't held back yet"
        assembler.feed(rest)
        assert assembler.is_idle


def spilling_program() -> list[bytes]:
    """Rows of every arrival style, and of several feeds each."""
    return [
        *relations(),
        *transaction(3, *inserted(ORDERS, *"ab"), sent.truncate(ITEMS), *inserted(ITEMS, *"xy")),
        *segment(5, *inserted(ORDERS, *"cd", subxid=5), *inserted(ORDERS, *"ef", subxid=51)),
        *segment(6, *inserted(ORDERS, *"gh", subxid=6)),
        *segment(5, *inserted(ITEMS, *"zw", subxid=51), sent.truncate(ORDERS, subxid=5)),
        *segment(5, *inserted(ORDERS, *"ij", subxid=52), *inserted(ORDERS, "k", subxid=5)),
        sent.stream_abort(5, 51),
        *prepared(7, "gid", *inserted(ORDERS, *"lm"), at=700),
        *transaction(8, *inserted(ORDERS, *"no"), *inserted(ITEMS, "v")),
        stream_commit(5, at=900),
        *transaction(10, *inserted(ORDERS, *"pq"), sent.truncate(ORDERS), *inserted(ORDERS, "r")),
        commit_prepared(7, "gid", at=1100),
        stream_commit(6, at=1200),
        *transaction(13, *inserted(ITEMS, *"st")),
    ]


def fed_one_by_one(monkeypatch: pytest.MonkeyPatch, memory_bytes: int, batch_bytes: int) -> Assembler:
    monkeypatch.setattr(assembler_module, "MEMORY_BYTES", memory_bytes)
    monkeypatch.setattr(assembler_module, "BATCH_BYTES", batch_bytes)
    monkeypatch.setattr(pieces_module, "BATCH_BYTES", batch_bytes)
    assembler = assembler_from()
    for frame in spilling_program():
        assembler.feed([frame])
        assert assembler.memory_bytes >= 0
        assert assembler.spilled_bytes >= 0
    return assembler


SPILLED = {
    "orders": ["a", "b", "n", "o", "c", "d", "TRUNCATE", *"ijkpq", "TRUNCATE", *"rlmgh"],
    "items": ["TRUNCATE", *"xyvst"],
}


class TestSpilling:
    def test_without_it_all_is_in_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assembler = fed_one_by_one(monkeypatch, 10**9, 10**9)
        assert assembler.spilled_bytes == 0
        (group,) = taken(assembler)
        assert names_in(group) == SPILLED

    @pytest.mark.parametrize("batch_bytes", [1, 150, 10**9])
    @pytest.mark.parametrize("memory_bytes", [0, 150, 300, 1000])
    def test_rows_from_disk_are_the_same(
        self, monkeypatch: pytest.MonkeyPatch, memory_bytes: int, batch_bytes: int
    ) -> None:
        (plain,) = taken(fed_one_by_one(monkeypatch, 10**9, 10**9))
        assembler = fed_one_by_one(monkeypatch, memory_bytes, batch_bytes)
        assert assembler.spilled_bytes > 0
        (group,) = taken(assembler)
        assert (assembler.memory_bytes, assembler.spilled_bytes) == (0, 0)
        assert names_in(group) == SPILLED
        for tables in (TABLES, {THE_ITEMS}, TABLES):
            assert rows_by_table([group], tables) == rows_by_table([plain], tables)
        assert group.row_count == plain.row_count
        assert group.size_bytes == plain.size_bytes
        group.release()

    def test_released_group_has_given_its_disk_space_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        (group,) = taken(fed_one_by_one(monkeypatch, 0, 1))
        group.release()
        with pytest.raises(ValueError, match="closed file"):
            list(group.read(TABLES))

    @pytest.mark.parametrize("until", range(1, len(spilling_program()) + 1))
    def test_closing_gives_everything_back_at_any_time(self, monkeypatch: pytest.MonkeyPatch, until: int) -> None:
        """A file that stays open would be warned of, and a warning is an error here."""
        files = track_files(monkeypatch)
        monkeypatch.setattr(assembler_module, "MEMORY_BYTES", 0)
        assembler = assembler_from(850)
        for frame in spilling_program()[:until]:
            assembler.feed([frame])
            if until % 2:
                assembler.seal()
        assembler.close()
        assert all(file.closed for file in files)

    def test_a_transaction_that_is_skipped_does_not_pile_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        files = track_files(monkeypatch)
        monkeypatch.setattr(assembler_module, "MEMORY_BYTES", 0)
        assembler = assembler_from(10**6)
        for frame in [*relations(), *transaction(7, *inserted(ORDERS, *"abc"))]:
            assembler.feed([frame])
            assert assembler.memory_bytes == 0
        assert files == []

    def test_finished_and_unwanted_transactions_give_their_files_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        files = track_files(monkeypatch)
        monkeypatch.setattr(assembler_module, "MEMORY_BYTES", 0)
        assembler = assembler_from(10**6)
        assembler.feed(relations())
        rows = inserted(ORDERS, *"ab", subxid=5)
        for end in ([stream_commit(5, at=900)], [sent.stream_abort(5, 5)]):
            for frame in [*segment(5, *rows), *end]:
                assembler.feed([frame])
        for end in ([commit_prepared(5, "gid", at=900)], [rollback_prepared(5, "gid", at=900)]):
            for frame in [*prepared(5, "gid", ROW, at=700), *prepared(5, "gid", ROW, at=700), *end]:
                assembler.feed([frame])
        assert len(files) == 6
        assert all(file.closed for file in files)

    def test_aborted_rows_on_disk_vanish_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(assembler_module, "MEMORY_BYTES", 0)
        assembler = known()
        rows = [*inserted(ORDERS, "a", subxid=5), *inserted(ORDERS, "b", subxid=51), *inserted(ORDERS, "c", subxid=5)]
        for frame in [*segment(5, *rows), sent.stream_abort(5, 51), stream_commit(5, at=900)]:
            assembler.feed([frame])
        (group,) = taken(assembler)
        assert names_in(group) == {"orders": ["a", "c"]}
        group.release()

    def test_memory_is_bounded_while_large_transactions_arrive(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(assembler_module, "MEMORY_BYTES", 1000)
        assembler = known()
        most = 1000 + len(ROW) + assembler_module.ROW_OVERHEAD_BYTES
        for xid in range(5, 25):
            for frame in segment(xid, *inserted(ORDERS, *"abc", subxid=xid)):
                assembler.feed([frame])
                assert assembler.memory_bytes <= most
        for frame in transaction(30, *inserted(ORDERS, *"abcdefghijklmnopqrstuvwxyz"))[:-1]:
            assembler.feed([frame])
            assert assembler.memory_bytes <= 2 * most
        assembler.close()


def track_files(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return the spill files of this test, as they are made."""
    files: list[object] = []
    make = pieces_module.tempfile.TemporaryFile

    def remembered(**arguments: object) -> object:
        files.append(make(**arguments))
        return files[-1]

    monkeypatch.setattr(pieces_module.tempfile, "TemporaryFile", remembered)
    return files
