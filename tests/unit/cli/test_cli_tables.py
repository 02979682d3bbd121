from __future__ import annotations

import json

import pytest
from cli_shell import Shell, engine
from fake_databases import World, streaming

from cdc.schema import TableId


class TestTables:
    def test_list_asks_the_lake_without_an_engine(self, shell: Shell, world: World) -> None:
        world.progress["shop"] = streaming("orders", "customers")
        result = shell.run("tables", "list")
        assert result.exit_code == 0
        assert [line.split()[1] for line in result.stdout.splitlines()] == [
            "TABLE",
            "public.orders",
            "public.customers",
        ]

    def test_list_json_has_the_documented_fields(self, shell: Shell) -> None:
        with engine(shell):
            document = json.loads(shell.run("tables", "list", "--json").stdout)
        row = {"source": "shop", "table": "public.orders", "target": "shop.orders", "state": "streaming", "reason": ""}
        assert document == {"running": True, "tables": [row]}

    def test_list_says_that_there_is_nothing_yet(self, shell: Shell) -> None:
        assert shell.run("tables", "list").stdout == "no tables yet\n"

    def test_resync_only_says_what_it_would_do(self, shell: Shell, world: World) -> None:
        world.progress["shop"] = streaming("orders")
        result = shell.run("tables", "resync", "shop", "public.orders")
        assert result.exit_code == 0
        assert result.stdout.splitlines() == [
            "copies shop public.orders into shop.orders again",
            "nothing was done; add --yes to do it",
        ]
        assert world.forgotten == []

    def test_resync_forgets_the_chosen_tables(self, shell: Shell, world: World) -> None:
        world.progress["shop"] = streaming("orders", "customers")
        result = shell.run("tables", "resync", "shop", "public.orders", "public.orders", "--yes")
        assert result.exit_code == 0
        assert world.forgotten == [("shop", [TableId("public", "orders")])]
        assert "http is null" in result.stderr

    def test_resync_of_all_forgets_the_position_too(self, shell: Shell, world: World) -> None:
        world.progress["shop"] = streaming("orders", "customers")
        result = shell.run("tables", "resync", "shop", "--all", "--yes")
        assert world.forgotten == [("shop", None)]
        assert 'forgets the position of shop ({"lsn":"0/16B3748"})' in result.stdout
        assert "copies shop public.customers into shop.customers again" in result.stdout

    def test_resync_refuses_while_the_engine_runs(self, shell: Shell, world: World) -> None:
        world.progress["shop"] = streaming("orders")
        with engine(shell):
            result = shell.run("tables", "resync", "shop", "public.orders", "--yes")
        assert result.exit_code == 1
        assert "expected a stopped engine, got one that runs as process 4242" in result.stderr
        assert world.forgotten == []

    @pytest.mark.parametrize(
        ("words", "hint"),
        [
            (["shp", "public.orders"], "did you mean shop?"),
            (["shop", "public.order"], "did you mean public.orders?"),
            (["shop", "zzz"], "known are: public.orders"),
        ],
    )
    def test_resync_of_something_unknown_names_the_nearest(
        self, shell: Shell, world: World, words: list[str], hint: str
    ) -> None:
        world.progress["shop"] = streaming("orders")
        result = shell.run("tables", "resync", *words, "--yes")
        assert result.exit_code == 2
        assert f"hint: {hint}" in result.stderr
        assert world.forgotten == []
