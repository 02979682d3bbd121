from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any

import pytest
from cli_shell import Shell


class TestConfig:
    def test_show_prints_a_file_with_defaults_filled_in_and_passwords_masked(self, shell: Shell) -> None:
        output = shell.run("config", "show").stdout
        assert "url: postgresql://cdc:***@db1/shop" in output
        assert "rpo: 30s" in output
        assert "discover: 10s" in output

    def test_show_prints_json(self, shell: Shell) -> None:
        shown = json.loads(shell.run("config", "show", "--json").stdout)
        assert shown["lake"] == {"type": "postgres", "url": "postgresql://cdc:***@lake/lake"}

    def test_schema_prints_the_json_schema_without_a_configuration(self, shell: Shell) -> None:
        shell.file.unlink()
        assert "PostgresSourceConfig" in json.loads(shell.run("config", "schema").stdout)["$defs"]


class TestRun:
    def test_the_engine_gets_the_configuration_and_gives_the_exit_code(
        self, shell: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[Any] = []

        class Engine:
            def __init__(self, config: Any) -> None:
                seen.append(config)

            def run(self) -> int:
                return 7

        _module(monkeypatch, "cdc.engine", Engine=Engine)
        monkeypatch.setattr("cdc.log.setup", lambda *arguments: seen.append(arguments))
        assert shell.run("run", "--log-format", "json", "--log-level", "debug").exit_code == 7
        logging_arguments, config = seen
        assert logging_arguments == ("debug", "json")
        assert list(config.sources) == ["shop"]


class TestDemo:
    def test_the_options_are_passed_on(self, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: dict[str, Any] = {}

        def run_demo(**options: Any) -> int:
            seen.update(options)
            return 4

        _module(monkeypatch, "cdc.demo.run", run_demo=run_demo)
        assert shell.run("demo", "--seconds", "15", "--json", "--keep").exit_code == 4
        assert seen == {"seconds": 15.0, "as_json": True, "keep": True}


def _module(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    """Make ``name`` importable with this content only."""
    module = ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)
