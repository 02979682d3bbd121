"""Chinook, a small music shop's database, loaded into a live source while the engine runs, arrives identical."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fix_engine import EngineHarness, value

pytestmark = pytest.mark.servers

SCRIPT = Path(__file__).parents[1] / "data" / "chinook" / "chinook_postgres.sql.gz"
NOT_HERE = re.compile(r"(DROP|CREATE) DATABASE|\\c ")
"""What the script does to databases, and psql's own command: the test has a database already."""

ROWS = {
    "album": 347,
    "artist": 275,
    "customer": 59,
    "employee": 8,
    "genre": 25,
    "invoice": 412,
    "invoice_line": 2240,
    "media_type": 5,
    "playlist": 18,
    "playlist_track": 8715,
    "track": 3503,
}


def statements() -> list[str]:
    text = re.sub(r"/\*.*?\*/", "", gzip.decompress(SCRIPT.read_bytes()).decode(), flags=re.DOTALL)
    found = [part.strip() for part in re.split(r";[ \t]*\r?\n", text)]
    return [statement for statement in found if statement and not NOT_HERE.match(statement)]


@pytest.mark.all_versions
def test_chinook_loaded_while_the_engine_runs_arrives_identical(
    engine: EngineHarness, source: psycopg.Connection[Any], lake: psycopg.Connection[Any]
) -> None:
    engine.start()
    for statement in statements():
        source.execute(statement.encode())
    engine.wait_until_identical(list(ROWS))
    assert {name: value(lake, f"SELECT count(*) FROM lake.{name}") for name in ROWS} == ROWS

    with source.transaction():
        source.execute("UPDATE track SET unit_price = unit_price + 0.50, composer = NULL WHERE genre_id = 2")
        source.execute("UPDATE playlist_track SET playlist_id = 18 WHERE playlist_id = 5")
        source.execute("DELETE FROM playlist_track WHERE playlist_id IN (1, 8)")
        source.execute("INSERT INTO artist VALUES (1000, 'Motörhead'), (1001, NULL)")
    source.execute("TRUNCATE invoice CASCADE")
    engine.wait_until_identical(list(ROWS))
    assert value(lake, "SELECT count(*) FROM lake.invoice_line") == 0
    assert engine.stop() == 0
