"""From a real source to a real lake: what applications do to tables, and that the lake holds the same afterwards."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from fix_engine import EngineHarness

pytestmark = pytest.mark.servers

Connection = psycopg.Connection[Any]


@pytest.mark.all_versions
def test_rows_from_before_and_after_the_start_arrive(engine: EngineHarness, source: Connection) -> None:
    source.execute("CREATE TABLE item (id int PRIMARY KEY, note text)")
    source.execute("INSERT INTO item SELECT n, 'before ' || n FROM generate_series(1, 1000) n")
    engine.start()
    source.execute("INSERT INTO item SELECT n, 'after ' || n FROM generate_series(1001, 1500) n")
    source.execute("UPDATE item SET note = 'changed' WHERE id % 3 = 0")
    source.execute("DELETE FROM item WHERE id % 7 = 0")
    engine.wait_until_identical()
    assert engine.stop() == 0
