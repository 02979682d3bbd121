"""A demo ends well only if everything did."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from cdc.demo.compare import Comparison, Pair
from cdc.demo.enrich import Survival
from cdc.demo.sample import all_streaming
from cdc.demo.shop import TABLES
from cdc.demo.verdict import Verdict
from cdc.demo.view import Frame, Lines, render

ORDERS = Comparison(pair=Pair(("public", "orders"), ("shop", "orders")), source_rows=10, lake_rows=10)
GOOD = Verdict(
    seconds=15.04,
    caught_up=True,
    tables=(ORDERS,),
    changes=1234,
    kills=2,
    survival=Survival(rows=5, lost=0, index=True, view=True),
    lag_p50_seconds=0.0021,
    lag_p99_seconds=2.5,
)
FRAME = Frame(
    elapsed_seconds=12.3,
    phase="no engine",
    rows={"orders": (1200, 1180), "payments": (5, None)},
    changes=4321,
    changes_per_second=987,
    rpo_seconds=10,
)


def test_all_well_is_identical_and_exits_with_0() -> None:
    assert GOOD.exit_code == 0
    assert GOOD.to_json() == {
        "verdict": "identical",
        "seconds": 15.04,
        "caught_up": True,
        "tables": [{"name": "public.orders", "rows": 10, "identical": True}],
        "rows": 10,
        "changes": 1234,
        "kills": 2,
        "enrichment_survived": True,
        "lag": {"p50_seconds": 0.0021, "p99_seconds": 2.5},
    }
    assert json.dumps(GOOD.to_json())
    assert list(GOOD.lines())[-1] == "Verdict: identical"


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, tables=(ORDERS, replace(ORDERS, changed=1))),
        replace(GOOD, tables=(replace(ORDERS, absent_table=True),)),
        replace(GOOD, tables=()),
        replace(GOOD, caught_up=False),
        replace(GOOD, survival=replace(GOOD.survival, lost=1)),
        replace(GOOD, survival=replace(GOOD.survival, rows=0)),
        replace(GOOD, survival=replace(GOOD.survival, index=False)),
        replace(GOOD, survival=replace(GOOD.survival, view=False)),
    ],
)
def test_anything_less_exits_with_4(bad: Verdict) -> None:
    assert bad.exit_code == 4
    assert "NOT" in list(bad.lines())[-1]


def test_a_lag_that_was_never_measured_is_null() -> None:
    assert replace(GOOD, lag_p50_seconds=None, lag_p99_seconds=None).to_json()["lag"] == {
        "p50_seconds": None,
        "p99_seconds": None,
    }


def test_tables_stream_only_when_the_engine_says_so_for_every_one() -> None:
    tables = [{"table": f"public.{name}", "state": "streaming"} for name in TABLES]
    assert all_streaming({"sources": [{"name": "shop", "tables": tables}]}, "shop")
    assert not all_streaming({"sources": [{"name": "shop", "tables": tables[1:]}]}, "shop")
    assert not all_streaming(
        {"sources": [{"name": "shop", "tables": [*tables[1:], {**tables[0], "state": "copying"}]}]}, "shop"
    )
    assert not all_streaming({"sources": []}, "shop")
    assert not all_streaming(None, "shop")


def test_a_frame_shows_rows_lag_and_events() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render(FRAME, [(11.0, "engine killed")]))
    console.print(render(replace(FRAME, lag_seconds=0.004, budget_remaining_ratio=0.97), []))
    text = console.export_text()
    for expected in ("1,200", "1,180", "not yet there", "unknown (no engine)", "engine killed", "4 ms", "97.0%"):
        assert expected in text


def test_lines_come_every_other_second(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines() as lines:
        for tenth in range(50):
            lines.show(replace(FRAME, elapsed_seconds=tenth / 10))
        lines.say("done")
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 4
    assert "1,205 at the source, 1,180 in the lake" in out[0]
