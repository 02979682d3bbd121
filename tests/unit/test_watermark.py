"""Which transactions a copy holds, said by the snapshot that it was made under."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sink_batches import NumberedPosition

from cdc.errors import DecodeError
from cdc.group import Transactions
from connectors.postgres.position import PostgresPosition
from connectors.postgres.watermark import SnapshotWatermark

LSN = 0x16B3748


def covered(mark: SnapshotWatermark, ids: Iterable[int]) -> list[bool]:
    xids = np.array(list(ids), np.int64)
    mask = mark.covers(Transactions(xids, np.zeros(len(xids), np.int64)))
    assert mask.dtype == np.bool_
    return [bool(seen) for seen in mask]


def at(lsn: int) -> PostgresPosition:
    return PostgresPosition("1", 1, lsn)


def test_a_copy_holds_what_was_over_and_not_what_ran_or_began_later() -> None:
    mark = SnapshotWatermark.of("100:106:102,104", LSN)
    assert covered(mark, range(99, 108)) == [True, True, True, False, True, False, True, False, False]


def test_without_running_transactions_everything_before_xmax_is_held() -> None:
    mark = SnapshotWatermark.of("100:100:", LSN)
    assert covered(mark, [3, 99, 100, 101]) == [True, True, False, False]


def test_a_group_without_transactions_is_no_error() -> None:
    assert covered(SnapshotWatermark.of("100:106:102", LSN), []) == []


def test_ids_are_compared_across_the_end_of_their_32_bits() -> None:
    """The snapshot counts in 64 bits, of which the wire has the lower half."""
    era = 5 << 32
    mark = SnapshotWatermark.of(f"{era - 3}:{era + 6}:{era - 2},{era + 4}", LSN)
    wire_ids = [2**32 - 4, 2**32 - 3, 2**32 - 2, 2**32 - 1, 3, 4, 5, 6, 7]
    assert covered(mark, wire_ids) == [True, True, False, True, True, False, True, False, False]


@given(st.integers(2**32, 2**40), st.sets(st.integers(0, 40)), st.integers(0, 40), st.lists(st.integers(-60, 60)))
def test_wire_ids_mean_what_the_servers_own_64_bits_mean(
    xmin: int, gaps: set[int], width: int, offsets: list[int]
) -> None:
    xmax = xmin + width
    running = {xmin + gap for gap in gaps if gap < width}
    mark = SnapshotWatermark.of(f"{xmin}:{xmax}:{','.join(map(str, sorted(running)))}", LSN)
    full_ids = [xmin + offset for offset in offsets]
    expected = [xid < xmin or (xid < xmax and xid not in running) for xid in full_ids]
    assert covered(mark, [xid % 2**32 for xid in full_ids]) == expected
    assert SnapshotWatermark.parse(mark.token()) == mark


def test_its_token_is_one_line_that_is_read_back() -> None:
    mark = SnapshotWatermark.of("100:106:104,102", LSN)
    assert mark.token() == "0/16B3748 100:106:102,104"
    assert SnapshotWatermark.parse(mark.token()) == mark


@pytest.mark.parametrize(
    "token", ["", "0/0", "0/0 ", "0/0 1:2", "0/0 1:2:x", "0/0 1:2:3:4", "x 1:2:", "1:2: 0/0", "0/0 a:b:"]
)
def test_a_token_that_is_none_is_refused(token: str) -> None:
    with pytest.raises(DecodeError, match="expected"):
        SnapshotWatermark.parse(token)


def test_the_stream_has_passed_it_at_the_logs_end_of_that_moment() -> None:
    mark = SnapshotWatermark.of("100:106:102", LSN)
    assert [mark.passed(at(lsn)) for lsn in (0, LSN - 1, LSN, LSN + 1)] == [False, False, True, True]
    assert not mark.passed(NumberedPosition(2**64))
