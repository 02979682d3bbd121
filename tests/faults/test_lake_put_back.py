"""A lake that was restored from a backup may be older than what the source has discarded: that is noticed."""

from __future__ import annotations

from typing import Any

import psycopg
from fix_engine import EngineHarness, value


def test_a_lake_that_was_put_back_is_refused_and_healed_by_copying_again(
    engine: EngineHarness, source: psycopg.Connection[Any], lake: psycopg.Connection[Any]
) -> None:
    source.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    source.execute("INSERT INTO item SELECT i, 'first' FROM generate_series(1, 100) i")
    engine.start()
    engine.wait_until_identical(["item"])
    engine.stop()
    backup = value(lake, "SELECT position FROM cdc.positions")
    lake.execute("CREATE TABLE backup AS SELECT * FROM lake.item")
    lake.execute("ALTER TABLE lake.item ADD COLUMN note text")
    lake.execute("UPDATE lake.item SET note = 'mine ' || id")

    engine.start()
    source.execute("UPDATE item SET name = 'second' WHERE id <= 50")
    source.execute("DELETE FROM item WHERE id > 90")
    engine.wait_until_identical(["item"])
    engine.stop()
    lake.execute("UPDATE lake.item SET name = 'first'")
    lake.execute("INSERT INTO lake.item SELECT * FROM backup WHERE id > 90")
    lake.execute("UPDATE cdc.positions SET position = %s", [backup])

    engine.start(ready=False)
    assert engine.end() == 1, "no source can run"
    assert "put back to an earlier state" in engine.log
    assert "cdc tables resync shop --all" in engine.log
    assert value(lake, "SELECT count(*) FROM lake.item WHERE name = 'first'") == 100, "nothing was written"

    done = engine.cdc("tables", "resync", "shop", "--all", "--yes")
    assert done.returncode == 0, done.stderr
    engine.start()
    engine.wait_until_identical(["item"])
    assert value(lake, "SELECT count(*) FROM lake.item WHERE note = 'mine ' || id") == 90
    assert value(lake, "SELECT count(*) FROM cdc.audit WHERE action = 'resync'") == 1


def test_an_idle_source_confirms_only_what_the_lake_has_stored(
    engine: EngineHarness, source: psycopg.Connection[Any], lake: psycopg.Connection[Any]
) -> None:
    source.execute("CREATE TABLE item (id int PRIMARY KEY)")
    engine.start()
    engine.wait_until_identical(["item"])
    source.execute("CREATE TEMPORARY TABLE elsewhere AS SELECT 1")
    source.execute("SELECT pg_logical_emit_message(true, 'other', repeat('x', 1000))")
    engine.wait_until_durable()
    confirmed = value(
        source, "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = %s", [engine.slot]
    )
    stored = value(lake, "SELECT position::json ->> 'lsn' FROM cdc.positions")
    assert value(source, "SELECT %s::pg_lsn <= %s::pg_lsn", [confirmed, stored])
