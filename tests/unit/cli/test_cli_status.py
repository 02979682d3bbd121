from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from cli_shell import ORDERS, SHOP, STATUS, Shell, engine
from fake_databases import LAKE_DSN, World, streaming

from cdc.cli.status import render
from cdc.contracts import TableState
from cdc.errors import SinkUnavailableError
from cdc.status import SourceState, SourceStatus


class TestStatus:
    def test_a_running_engine_is_shown(self, shell: Shell) -> None:
        with engine(shell):
            result = shell.run("status")
        assert result.exit_code == 0
        lines = [re.sub(r"  +", "|", line) for line in result.stdout.splitlines()]
        assert lines == [
            "test: cdc 1.2.3, process 4242",
            "",
            "SOURCE|STATE|POSITION|LAG|RPO|BUDGET|RECOVERY|RTO|RETAINED",
            "shop|streaming|0/16B3748|0.2 s|30.0 s|100%|1 min 35 s|15 min 0 s|3.0 MiB",
            "",
            "SOURCE|TABLE|IN THE LAKE|STATE|CHANGES",
            "shop|public.orders|shop.orders|streaming|1,234",
        ]

    def test_json_is_the_engines_own_status_and_says_that_it_runs(self, shell: Shell) -> None:
        with engine(shell):
            document = json.loads(shell.run("status", "--json").stdout)
        assert document == {"running": True, **json.loads(json.dumps(STATUS.to_json()))}

    @pytest.mark.parametrize(
        ("source", "code"),
        [
            (SHOP, 0),
            (replace(SHOP, state=SourceState.RETRYING), 0),
            (replace(SHOP, lag_seconds=31.0), 3),
            (replace(SHOP, lag_seconds=31.0, rpo_seconds=None), 0),
            (replace(SHOP, lag_seconds=0.5, rpo_seconds=0.0), 3),
            (replace(SHOP, state=SourceState.FAILED, error="slot lost", hint="cdc tables resync shop --all"), 3),
        ],
    )
    def test_the_exit_code_tells_whether_the_objective_is_met(
        self, shell: Shell, source: SourceStatus, code: int
    ) -> None:
        with engine(shell, replace(STATUS, sources=(source,))):
            assert shell.run("status").exit_code == code
            assert shell.run("status", "--json").exit_code == code

    def test_what_stands_in_the_way_is_shown_with_its_hint(self, shell: Shell) -> None:
        failed_table = replace(ORDERS, state=TableState.FAILED, reason="type changed")
        source = replace(SHOP, state=SourceState.FAILED, error="slot lost", hint="resync it", tables=(failed_table,))
        with engine(shell, replace(STATUS, sources=(source,))):
            output = shell.run("status").stdout
        assert output.endswith("shop: slot lost\n  hint: resync it\nshop public.orders: type changed\n")

    def test_without_an_engine_the_lake_is_asked(self, shell: Shell, world: World) -> None:
        world.progress["shop"] = streaming("orders")
        result = shell.run("status")
        assert result.exit_code == 1
        assert "no engine answers; this is what is durable in the lake" in result.stdout
        assert "public.orders" in result.stdout

    def test_json_without_an_engine_has_the_documented_fields(self, shell: Shell, world: World) -> None:
        world.progress["shop"] = streaming("orders")
        result = shell.run("status", "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout) == {
            "running": False,
            "environment": "development",
            "sources": [
                {
                    "name": "shop",
                    "type": "postgres",
                    "state": "stopped",
                    "position": '{"lsn":"0/16B3748"}',
                    "committed_at": 1_700_000_000.0,
                    "rpo_seconds": 30.0,
                    "rto_seconds": None,
                    "tables": [{"table": "public.orders", "target": "shop.orders", "state": "streaming", "reason": ""}],
                }
            ],
        }

    def test_a_source_that_the_lake_does_not_know_is_shown_empty(self, shell: Shell) -> None:
        assert json.loads(shell.run("status", "--json").stdout)["sources"][0]["position"] is None

    def test_without_an_engine_and_without_a_lake_it_fails(self, shell: Shell, world: World) -> None:
        world.broken_lake = SinkUnavailableError(f"could not connect to {LAKE_DSN}")
        assert shell.run("status").exit_code == 1

    def test_a_port_where_nobody_listens_means_that_no_engine_runs(self, shell: Shell) -> None:
        with engine(shell):
            pass
        assert json.loads(shell.run("status", "--json").stdout)["running"] is False

    def test_another_server_is_not_taken_for_the_engine(self, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cdc.status.EngineStatus.to_json", lambda status: {"hello": "world"})
        with engine(shell):
            result = shell.run("status")
        assert result.exit_code == 1
        assert "expected the engine's status at 127.0.0.1:" in result.stderr

    def test_watching_draws_until_interrupted(self, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr("cdc.cli.status.time.sleep", pause)
        with engine(shell):
            assert shell.run("status", "--watch", "--interval", "0.5").exit_code == 130
        assert pauses == [0.5, 0.5, 0.5]

    def test_long_positions_and_running_copies_fit_the_table(self) -> None:
        copying = replace(ORDERS, state=TableState.COPYING, copied_rows=12_345, changes={})
        source = replace(SHOP, position="x" * 100, lag_seconds=7300.0, retained_bytes=5 * 2**40, tables=(copying,))
        text = render({"running": True, **replace(STATUS, sources=(source,)).to_json()})
        assert "copying (12,345 rows)" in text
        assert "x" * 37 + "... " in text
        assert "2 h 1 min !" in text
        assert "5.0 TiB" in text
