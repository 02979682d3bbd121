from __future__ import annotations

import json

from cli_shell import Shell
from fake_databases import GOOD, World


class TestPlan:
    def test_the_steps_are_listed_by_place(self, shell: Shell) -> None:
        output = shell.run("plan").stdout
        assert output.startswith("sources.shop\n  create the publication\n      CREATE PUBLICATION cdc_shop;\n")
        assert "lake\n  create schema cdc\n" in output
        assert "CREATE TABLE shop.orders ()" in output

    def test_nothing_to_do_is_said(self, shell: Shell, world: World) -> None:
        world.source_steps.clear()
        assert shell.run("plan").stdout.startswith("sources.shop  nothing to do\n")

    def test_sql_prints_statements_that_can_be_run(self, shell: Shell) -> None:
        lines = shell.run("plan", "--sql").stdout.splitlines()
        assert lines[0] == "-- sources.shop"
        assert all(line.endswith(";") and not line.endswith(";;") for line in lines if not line.startswith("--"))

    def test_json_has_the_documented_fields(self, shell: Shell) -> None:
        steps = json.loads(shell.run("plan", "--json").stdout)["steps"]
        assert steps[0] == {
            "place": "sources.shop",
            "where": "source",
            "summary": "create the publication",
            "sql": "CREATE PUBLICATION cdc_shop;",
        }
        assert {step["place"] for step in steps} == {"sources.shop", "lake"}

    def test_what_two_sources_need_in_the_lake_is_listed_once(self, shell: Shell) -> None:
        shell.write(GOOD.replace("  shop:", "  shop: &shop") + "  crm: {<<: *shop}\nhttp: null\n")
        steps = [step["sql"] for step in json.loads(shell.run("plan", "--json").stdout)["steps"]]
        assert steps.count("CREATE SCHEMA cdc") == 1
        assert steps.count("CREATE TABLE crm.orders ()") == 1
