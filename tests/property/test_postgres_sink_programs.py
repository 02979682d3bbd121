"""Random programs written through the lane to a real server come to what their rows, one by one, come to."""

from __future__ import annotations

from collections import Counter
from contextlib import closing

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sink_batches import NumberedPosition, batch_of, group_of, target_of, truncate_of
from sink_programs import BAG, KEYED, BagSource, KeyedSource, programs

from sinks.postgres import PostgresSink

pytestmark = pytest.mark.servers

LARGE = 1000
"""A group that says to have this many rows is written in sets, however few there are."""

TRUNCATES = 4
"""The mark after which the source truncates its table."""

parts = st.lists(
    st.tuples(programs, st.sampled_from(["same group", "small group", "large group"]), st.integers(0, 4)),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("deferred", [False, True], ids=["immediate key", "deferrable key"])
def test_any_grouping_of_any_program_leaves_what_its_rows_do(lake_dsn, deferred):
    sink = PostgresSink(lake_dsn)
    sink.install()
    seen: Counter[str] = Counter()
    with closing(sink.lane("shop")) as lane, psycopg.connect(lake_dsn, autocommit=True) as user:
        lane.begin(NumberedPosition(0))
        lane.prepare(KEYED, target_of(KEYED))
        user.execute(
            "ALTER TABLE lake.items ADD COLUMN mine text, ADD COLUMN twice text GENERATED ALWAYS AS (mine) STORED"
        )
        number = 0

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(parts)
        def run(cut_programs):
            nonlocal number
            source = KeyedSource(deferred)
            batches = [truncate_of(KEYED)]
            for program, cut, mark in cut_programs:
                changes = source.run(program)
                batches += [batch_of(KEYED, changes)] if changes else []
                if cut != "same group":
                    number += 1
                    seen[cut] += 1
                    lane.apply(group_of(number, *batches, row_count=LARGE if cut == "large group" else None))
                    batches = []
                    assert held(user) == source.expected()
                    enrich(user, source, mark)
                if mark == TRUNCATES:
                    source.things.clear()
                    batches.append(truncate_of(KEYED))
                    seen["truncate"] += 1
            number += 1
            lane.apply(group_of(number, *batches, row_count=LARGE))
            assert held(user) == source.expected()
            seen.update(source.seen)

        run()
    wanted = {"insert", "update", "move", "delete", "unchanged", "truncate", "small group", "large group"}
    assert seen.keys() >= wanted | ({"delete of a doubled key"} if deferred else set())


def held(user):
    rows = user.execute("SELECT a::text, b, note, large, mine, twice FROM lake.items").fetchall()
    assert all(row[4] == row[5] for row in rows)
    return {(a, b): ({"a": a, "b": b, "note": note, "large": large}, mine) for a, b, note, large, mine, _ in rows}


def enrich(user, source, mark):
    for thing in source.things[:1]:
        thing.mine = f"mine {mark}"
        where = (thing.row["a"], thing.row["b"])
        changed = user.execute("UPDATE lake.items SET mine = %s WHERE a = %s::int AND b = %s", (thing.mine, *where))
        assert changed.rowcount == 1


def test_any_program_on_a_table_without_key_leaves_what_its_rows_do(lake_dsn):
    sink = PostgresSink(lake_dsn)
    sink.install()
    seen: Counter[str] = Counter()
    with closing(sink.lane("shop")) as lane, psycopg.connect(lake_dsn, autocommit=True) as user:
        lane.begin(NumberedPosition(0))
        lane.prepare(BAG, target_of(BAG))
        number = 0

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(programs, min_size=1, max_size=3))
        def run(cut_programs):
            nonlocal number
            source = BagSource()
            lane.apply(group_of(number := number + 1, truncate_of(BAG)))
            for program in cut_programs:
                changes = source.run(program)
                lane.apply(group_of(number := number + 1, *([batch_of(BAG, changes)] if changes else [])))
                rows = user.execute("SELECT note, large FROM lake.lines").fetchall()
                assert Counter(rows) == Counter((row["note"], row["large"]) for row in source.rows)
            seen.update(source.seen)

        run()
    assert seen.keys() >= {"insert", "update", "delete"}
