from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cdc.contracts import TableState
from cdc.metrics import build_registry
from cdc.status import EngineStatus, SourceState, SourceStatus, TableStatus

ORDERS = TableStatus(
    table="public.orders",
    target="shop.orders",
    state=TableState.STREAMING,
    changes={"c": 5, "u": 2},
    copied_rows=100,
)
SHOP = SourceStatus(
    name="shop",
    type="postgres",
    state=SourceState.STREAMING,
    lag_seconds=1.5,
    rpo_seconds=30.0,
    rto_seconds=900.0,
    rpo_breach_seconds_total=7.0,
    budget_remaining_ratio=0.8,
    recovery_estimate_seconds=2.0,
    retained_bytes=4096,
    buffered_bytes=77,
    transactions_total=9,
    tables=(ORDERS,),
)
STATUS = EngineStatus(environment="test", version="1.2.3", pid=1, started_at=0.0, sources=(SHOP,))

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(status: EngineStatus = STATUS) -> tuple[Samples, dict[str, str]]:
    """Return the samples by name and labels, and the type of each family."""
    registry, apply = build_registry(lambda: status)
    apply.observe("shop", 0.002, 12)
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    samples = {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}
    return samples, {family.name: family.type for family in families}


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("cdc_lag_seconds", {}, 1.5),
        ("cdc_rpo_seconds", {}, 30.0),
        ("cdc_rpo_breach_seconds_total", {}, 7.0),
        ("cdc_rpo_budget_remaining_ratio", {}, 0.8),
        ("cdc_rto_seconds", {}, 900.0),
        ("cdc_recovery_estimate_seconds", {}, 2.0),
        ("cdc_source_up", {}, 1.0),
        ("cdc_source_retained_bytes", {}, 4096.0),
        ("cdc_buffer_bytes", {}, 77.0),
        ("cdc_transactions_total", {}, 9.0),
        ("cdc_changes_total", {"table": "public.orders", "op": "c"}, 5.0),
        ("cdc_changes_total", {"table": "public.orders", "op": "u"}, 2.0),
        ("cdc_table_state", {"table": "public.orders", "state": "streaming"}, 1.0),
        ("cdc_table_state", {"table": "public.orders", "state": "failed"}, 0.0),
        ("cdc_table_state", {"table": "public.orders", "state": "pending"}, 0.0),
        ("cdc_table_state", {"table": "public.orders", "state": "copying"}, 0.0),
        ("cdc_snapshot_rows", {"table": "public.orders"}, 100.0),
        ("cdc_apply_seconds_count", {}, 1.0),
        ("cdc_apply_seconds_sum", {}, 0.002),
        ("cdc_apply_rows_sum", {}, 12.0),
    ],
)
def test_every_figure_of_the_status_is_exposed(name: str, labels: dict[str, str], value: float) -> None:
    samples, _ = scrape()
    assert samples[name, tuple(sorted({"source": "shop", **labels}.items()))] == value


def test_the_version_is_exposed() -> None:
    assert scrape()[0]["cdc_build_info", (("version", "1.2.3"),)] == 1


def test_counters_histograms_and_gauges_have_their_types() -> None:
    _, types = scrape()
    of = {kind: {name for name, other in types.items() if other == kind} for kind in set(types.values())}
    assert of["counter"] == {"cdc_rpo_breach_seconds", "cdc_changes", "cdc_transactions"}
    assert of["histogram"] == {"cdc_apply_seconds", "cdc_apply_rows"}
    assert set(of) == {"counter", "gauge", "histogram"}


def test_what_is_not_known_is_left_out_rather_than_zero() -> None:
    bare = SourceStatus(name="shop", type="postgres", state=SourceState.RETRYING)
    samples, _ = scrape(replace(STATUS, sources=(bare,)))
    shown = {name for name, _ in samples}
    for name in ("rpo_seconds", "rto_seconds", "recovery_estimate_seconds", "source_retained_bytes"):
        assert f"cdc_{name}" not in shown
    assert samples["cdc_source_up", (("source", "shop"),)] == 0


def test_the_number_of_series_depends_on_the_tables_only() -> None:
    busy = replace(ORDERS, changes=dict.fromkeys("cudrt", 10**9), copied_rows=10**12, reason="x" * 1000)
    one, _ = scrape(replace(STATUS, sources=(replace(SHOP, tables=(busy,)),)))
    two, _ = scrape(replace(STATUS, sources=(replace(SHOP, tables=(busy, replace(busy, table="public.b"))),)))
    assert len(two) - len(one) == 5 + len(TableState) + 1


def test_odd_table_names_survive_the_exposition() -> None:
    odd = replace(ORDERS, table='public."we\nird\\"')
    samples, _ = scrape(replace(STATUS, sources=(replace(SHOP, tables=(odd,)),)))
    assert samples["cdc_snapshot_rows", (("source", "shop"), ("table", odd.table))] == 100


def test_two_engines_in_one_process_do_not_share_metrics() -> None:
    first, apply = build_registry(lambda: STATUS)
    second, _ = build_registry(lambda: STATUS)
    apply.observe("shop", 1, 1)
    assert first.get_sample_value("cdc_apply_rows_count", {"source": "shop"}) == 1
    assert second.get_sample_value("cdc_apply_rows_count", {"source": "shop"}) is None
