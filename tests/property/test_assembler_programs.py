"""Whatever transactions a server runs and however they arrive: each table's rows come whole and in commit order."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from assembler_feed import ITEMS, TABLES, WANTED, Seen, layout_of, position, rows_by_table, taken
from assembler_programs import STYLES, Program, random_program
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.group import CommitGroup
from cdc.schema import TableId
from connectors.postgres import assembler as assembler_module
from connectors.postgres import pieces as pieces_module
from connectors.postgres.assembler import Assembler

FEATURES = {
    *STYLES,
    *(f"skipped: {style}" for style in STYLES if "rolled" not in style and "aborted" not in style),
    *("truncate", "unwanted table", "relation sent again", "subtransaction aborted", "interleaved", "empty"),
    *("spilled", "several groups", "sealed in a transaction", "not spilled"),
}
EXAMPLES = 300
TAMEST = 10**9


def run(program: Program, rng: random.Random, features: set[str]) -> list[CommitGroup]:
    """Feed the program in pieces, sealing now and then; return the groups."""
    assembler = Assembler("shop", position(program.start_lsn), layout_of)
    groups: list[CommitGroup] = []
    rest = program.frames
    while rest:
        count = rng.choice([1, 1, 2, 7, len(rest)])
        assembler.feed(rest[:count])
        rest = rest[count:]
        assert assembler.memory_bytes >= 0
        assert assembler.spilled_bytes >= 0
        if assembler.spilled_bytes:
            features.add("spilled")
        if rng.random() < 0.3:
            closed = assembler.peek()
            assembler.seal()
            if assembler.peek() is closed and assembler.oldest_commit_us is not None:
                features.add("sealed in a transaction")
        while rng.random() < 0.5 and (group := assembler.peek()) is not None:
            assembler.pop()
            groups.append(group)
    groups += taken(assembler)
    assert assembler.is_idle
    assert (assembler.memory_bytes, assembler.spilled_bytes) == (0, 0)
    assert assembler.oldest_commit_us is None
    assembler.settle(TAMEST)
    assert assembler.hold_lsn is None
    assembler.close()
    return groups


def check(program: Program, groups: list[CommitGroup]) -> None:
    assert rows_by_table(groups) == program.rows
    assert rows_by_table(groups, {WANTED[ITEMS]}) == only(program.rows, WANTED[ITEMS])
    assert rows_by_table(groups) == program.rows, "a group may be read again"
    assert [xid for group in groups for xid in group.transactions.ids.tolist()] == [xid for xid, _ in program.committed]
    ends = dict(program.committed)
    for group in groups:
        assert group.position == position(ends[int(group.transactions.ids[-1])])
        batches = list(group.read(TABLES))
        assert group.tables == {batch.schema.table for batch in batches}
        assert group.row_count == sum(map(len, batches))
    assert all(before.position < after.position for before, after in pairwise(groups))


def only(rows: dict[TableId, list[Seen]], table: TableId) -> dict[TableId, list[Seen]]:
    return {table: rows[table]} if table in rows else {}


def test_rows_come_in_commit_order_whatever_the_styles_of_arrival() -> None:
    occurred: Counter[str] = Counter()

    @settings(deadline=None, max_examples=EXAMPLES, database=None)
    @given(st.integers(0, 2**32 - 1))
    def try_seed(seed: int) -> None:
        rng = random.Random(seed)
        program = random_program(rng)
        with pytest.MonkeyPatch.context() as patch:
            batch_bytes = rng.choice([1, 300, TAMEST])
            patch.setattr(assembler_module, "MEMORY_BYTES", rng.choice([0, 400, 2000, TAMEST]))
            patch.setattr(assembler_module, "GROUP_BYTES", rng.choice([1, 500, TAMEST]))
            patch.setattr(assembler_module, "BATCH_BYTES", batch_bytes)
            patch.setattr(pieces_module, "BATCH_BYTES", batch_bytes)
            features = set(program.features)
            groups = run(program, rng, features)
            check(program, groups)
        for group in groups:
            group.release()
        features.add("spilled" if "spilled" in features else "not spilled")
        occurred.update(features | ({"several groups"} if len(groups) > 1 else set()))

    try_seed()
    assert set(occurred) == FEATURES, f"expected every feature to occur in {EXAMPLES} programs"
