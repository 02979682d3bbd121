"""The demo's parts on their own: honest counts, an enrichment whose loss would be seen, a lag that counts stalls."""

from __future__ import annotations

import time

import psycopg
import pytest

from cdc.demo.enrich import Enrichment
from cdc.demo.lag import LagProbe
from cdc.demo.sample import RowCounts
from cdc.demo.shop import SCHEMA, TABLES, create_shop
from cdc.demo.traffic import BULK_ROWS, Traffic

pytestmark = pytest.mark.servers


@pytest.fixture
def shop(source_dsn: str) -> str:
    create_shop(source_dsn)
    return source_dsn


@pytest.fixture
def copied(lake_dsn: str) -> str:
    """A lake with a copy of the shop that nobody keeps in step."""
    with psycopg.connect(lake_dsn) as lake:
        lake.execute("CREATE SCHEMA shop")
        lake.execute("SET search_path = shop")
        lake.execute(SCHEMA)
        lake.execute("INSERT INTO customers (email, name, address) SELECT i, i, '{}' FROM generate_series(1, 6100) i")
    return lake_dsn


def run_for(worker: Traffic | Enrichment | LagProbe, seconds: float) -> None:
    worker.start()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and worker.error is None:
        time.sleep(0.02)
    worker.stop()


def test_traffic_counts_exactly_the_changes_that_the_source_decodes(shop: str) -> None:
    with psycopg.connect(shop, autocommit=True) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot('count_' || current_database(), 'test_decoding')")
        traffic = Traffic(shop, seed=7)
        for _ in range(300):
            traffic.step(connection)
        decoded = connection.execute(
            "SELECT count(*) FROM pg_logical_slot_peek_changes('count_' || current_database(), NULL, NULL)"
            " WHERE data ~ '^table [^:]*: (INSERT|UPDATE|DELETE|TRUNCATE):'"
        ).fetchone()
    assert decoded == (traffic.changes,)
    assert len(traffic.counts) > 15, "some kind of transaction never came"
    assert traffic.counts["change_ones_mind"] > 0


def test_traffic_keeps_to_its_rate_and_loads_in_bulk(shop: str) -> None:
    traffic = Traffic(shop, rate=500)
    traffic.start()
    assert traffic.bulk_load(30)
    assert traffic.truncate(30)
    bulk = traffic.changes
    began = time.monotonic()
    while time.monotonic() - began < 1:
        time.sleep(0.02)
    traffic.stop()
    assert bulk >= BULK_ROWS
    assert traffic.changes - bulk < 1500


def test_what_ends_a_worker_is_raised_when_it_is_stopped(source_dsn: str) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        run_for(Traffic(source_dsn), 10)


def test_an_enrichment_that_survives_is_complete(copied: str) -> None:
    enrichment = Enrichment(copied, "shop")
    run_for(enrichment, 1.0)
    survival = enrichment.survival()
    assert survival.complete
    assert survival.rows > 20


@pytest.mark.parametrize(
    "loss",
    [
        "UPDATE shop.customers SET segment = 'overwritten' WHERE segment IS NOT NULL",
        "DROP INDEX shop.customers_by_segment",
        "DROP VIEW shop.segments",
        "DELETE FROM shop.customers",
        "DROP TABLE shop.customers CASCADE",
    ],
)
def test_a_lost_enrichment_is_found(copied: str, loss: str) -> None:
    enrichment = Enrichment(copied, "shop")
    run_for(enrichment, 0.8)
    with psycopg.connect(copied) as lake:
        lake.execute(loss)
    assert not enrichment.survival().complete


def test_a_stall_counts_for_every_heartbeat_that_it_held_up(shop: str, copied: str) -> None:
    probe = LagProbe(shop, copied, "shop")
    run_for(probe, 1.0)
    assert probe.samples == []
    with psycopg.connect(copied) as lake:
        lake.execute("UPDATE shop.heartbeats SET beat = 1000000")
    assert probe.wait_for_last(10)
    assert len(probe.samples) >= 8
    p50 = probe.percentile(0.5)
    assert p50 is not None
    assert p50 > 0.3


def test_a_heartbeat_that_never_arrives_is_reported(shop: str, copied: str) -> None:
    assert not LagProbe(shop, copied, "shop").wait_for_last(0.2)


def test_row_counts_tell_an_absent_table_from_an_empty_one(shop: str, lake_dsn: str) -> None:
    with RowCounts(shop, lake_dsn, "shop") as counts:
        counts.refresh()
    assert set(counts.rows) == set(TABLES)
    assert counts.rows["heartbeats"] == (1, None)
