from __future__ import annotations

import json

from cli_shell import LEAKY, Shell
from fake_databases import World, table

from cdc.contracts import Finding, Severity
from cdc.errors import PrivilegeError, SourceUnavailableError

WARNING = Finding(subject="table public.log", severity=Severity.WARNING, message="has no key", fix="ALTER TABLE log;")
ERROR = Finding(subject="wal_level", severity=Severity.ERROR, message="is replica", fix="ALTER SYSTEM SET\nwal_level;")


class TestCheck:
    def test_all_fine_exits_with_0(self, shell: Shell) -> None:
        result = shell.run("check")
        assert result.exit_code == 0
        assert result.stdout == "sources.shop  (1 of 1 fine)\nlake  (1 of 1 fine)\nerrors: 0, warnings: 0\n"

    def test_warnings_alone_exit_with_0(self, shell: Shell, world: World) -> None:
        world.source_findings.append(WARNING)
        result = shell.run("check")
        assert result.exit_code == 0
        assert "  warning  table public.log: has no key\n           fix: ALTER TABLE log;\n" in result.stdout

    def test_an_error_exits_with_1_and_prints_every_line_of_its_fix(self, shell: Shell, world: World) -> None:
        world.lake_findings.append(ERROR)
        result = shell.run("check")
        assert result.exit_code == 1
        assert (
            "  error    wal_level: is replica\n           fix: ALTER SYSTEM SET\n           fix: wal_level;"
            in result.stdout
        )
        assert result.stdout.endswith("errors: 1, warnings: 0\n")

    def test_verbose_lists_what_is_fine_too(self, shell: Shell) -> None:
        assert "  ok       wal_level: is logical\n" in shell.run("check", "-v").stdout

    def test_json_has_the_documented_fields(self, shell: Shell, world: World) -> None:
        world.source_findings[:] = [WARNING]
        world.lake_findings[:] = [ERROR]
        result = shell.run("check", "--json")
        assert result.exit_code == 1
        document = json.loads(result.stdout)
        assert (document["ok"], document["errors"], document["warnings"]) == (False, 1, 1)
        assert document["findings"][0] == {
            "place": "sources.shop",
            "subject": "table public.log",
            "severity": "warning",
            "message": "has no key",
            "fix": "ALTER TABLE log;",
        }
        assert [finding["place"] for finding in document["findings"]] == ["sources.shop", "lake"]

    def test_a_database_that_cannot_be_reached_does_not_hide_the_others(self, shell: Shell, world: World) -> None:
        world.broken_source = SourceUnavailableError(LEAKY)
        world.lake_findings.append(WARNING)
        result = shell.run("check")
        assert result.exit_code == 1
        assert "error    connection: could not connect to postgresql://***@db1/shop" in result.stdout
        assert "warning  table public.log" in result.stdout

    def test_two_tables_with_one_name_in_the_lake_are_an_error(self, shell: Shell, world: World) -> None:
        world.tables.append(table("orders", "archive"))
        result = shell.run("check")
        assert result.exit_code == 1
        assert "error    table public.orders: table public.orders: expected a free name in the lake" in result.stdout
        assert "archive.orders" in result.stdout

    def test_an_operators_hint_becomes_the_fix(self, shell: Shell, world: World) -> None:
        world.broken_lake = PrivilegeError("role cdc: expected CREATE", hint="GRANT CREATE ON DATABASE lake TO cdc")
        assert "fix: GRANT CREATE ON DATABASE lake TO cdc" in shell.run("check").stdout

    def test_output_to_a_file_has_no_colours(self, shell: Shell, world: World) -> None:
        world.source_findings.append(ERROR)
        assert "\x1b" not in shell.run("check").output
