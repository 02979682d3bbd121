from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import click
import pytest
from cli_shell import LEAKY, Shell
from fake_databases import GOOD, World

from cdc.cli.main import cli
from cdc.errors import PrivilegeError, SourceUnavailableError


def commands(group: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command."""
    yield path
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands(command, (*path, name))


class TestFrame:
    def test_importing_the_command_line_loads_nothing_heavy(self) -> None:
        heavy = ("pydantic", "pyarrow", "numpy", "sqlalchemy", "psycopg", "rich", "prometheus_client", "yaml")
        code = f"import sys, cdc.cli.main; print([m for m in {heavy!r} if m in sys.modules])"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert run.stdout == "[]\n"

    @pytest.mark.parametrize("words", list(commands()), ids=" ".join)
    def test_every_command_has_help(self, shell: Shell, words: tuple[str, ...]) -> None:
        result = shell.run(*words, "--help")
        assert result.exit_code == 0
        assert f"Usage: {' '.join(('cdc', *words))}" in result.output

    @pytest.mark.parametrize("words", [w for w in commands() if w not in [(), ("config",), ("tables",)]], ids=" ".join)
    def test_the_help_of_a_command_says_more_than_its_first_line(self, shell: Shell, words: tuple[str, ...]) -> None:
        text = shell.run(*words, "--help").output.partition("Options:")[0]
        assert len([line for line in text.splitlines() if line.strip()]) > 3

    def test_examples_in_the_help_are_real_commands(self, shell: Shell) -> None:
        known = {" ".join(("cdc", *words)) for words in commands()}
        for words in commands():
            examples = shell.run(*words, "--help").output.partition("Examples:")[2].partition("Options:")[0]
            for line in filter(None, map(str.strip, examples.splitlines())):
                without_options = re.sub(r" -c \S+", "", line)
                assert any(without_options.startswith(name) for name in known - {"cdc"}), line

    def test_the_version_is_printed(self, shell: Shell) -> None:
        result = shell.run("--version")
        assert re.fullmatch(r"cdc \d+\.\d+\.\d+\n", result.output)
        assert result.exit_code == 0

    def test_without_a_command_the_help_is_printed(self, shell: Shell) -> None:
        result = shell.run()
        assert result.exit_code == 2
        assert "Usage: cdc" in result.output

    @pytest.mark.parametrize(
        ("words", "attempt"),
        [
            (["chek"], "cdc --help"),
            (["check", "--jsn"], "cdc check --help"),
            (["tables", "resync"], "cdc tables resync --help"),
            (["tables", "resync", "shop"], "cdc tables resync --help"),
            (["tables", "resync", "shop", "public.orders", "--all"], "cdc tables resync --help"),
            (["run", "--log-level", "loud"], "cdc run --help"),
            (["init"], "cdc init --help"),
            (["status", "--watch", "--json"], "cdc status --help"),
        ],
    )
    def test_wrong_usage_says_what_to_try(self, shell: Shell, words: list[str], attempt: str) -> None:
        result = shell.run(*words)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
        assert result.stderr.endswith(f"try: {attempt}\n")
        assert result.stdout == ""

    def test_a_configuration_error_exits_with_2_and_a_hint(self, shell: Shell) -> None:
        shell.write(GOOD.replace("rpo: 30s", "rpoo: 30s"))
        result = shell.run("check")
        assert result.exit_code == 2
        expected = "error: sources.shop.rpoo: expected a known key, got 'rpoo'\nhint: did you mean rpo?\n"
        assert (result.stdout, result.stderr) == ("", expected)

    def test_any_other_error_exits_with_1(self, shell: Shell, world: World) -> None:
        world.broken_source = PrivilegeError(
            "role cdc: expected REPLICATION, got none", hint="ALTER ROLE cdc REPLICATION"
        )
        result = shell.run("plan")
        assert result.exit_code == 1
        assert result.stderr.endswith("hint: ALTER ROLE cdc REPLICATION\n")

    def test_an_error_that_holds_a_dsn_is_printed_without_its_password(self, shell: Shell, world: World) -> None:
        world.broken_source = SourceUnavailableError(LEAKY)
        assert "could not connect to postgresql://***@db1/shop" in shell.run("plan").stderr

    def test_ctrl_c_ends_quietly_with_130(self, shell: Shell, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(path: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("cdc.config_loader.load", interrupted)
        result = shell.run("check")
        assert (result.exit_code, result.output.strip()) == (130, "")

    def test_a_closed_pipe_is_no_error(self, shell: Shell) -> None:
        command = [sys.executable, "-c", "from cdc.cli.main import cli; cli.main(['status', '--help'])"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stderr
            process.stdout.close()
            assert process.stderr.read() == b""


class TestConfigFile:
    @pytest.mark.parametrize(
        "words",
        [
            ["-c", "other.yaml", "config", "show"],
            ["config", "-c", "other.yaml", "show"],
            ["config", "show", "--config", "other.yaml"],
            ["-c", "missing.yaml", "config", "show", "-c", "other.yaml"],
        ],
    )
    def test_the_option_is_taken_at_any_place_and_the_innermost_wins(self, shell: Shell, words: list[str]) -> None:
        (shell.directory / "other.yaml").write_text(GOOD + "environment: other\n")
        assert "environment: other" in shell.run(*words).output

    def test_the_environment_names_the_file(self, shell: Shell) -> None:
        (shell.directory / "other.yaml").write_text(GOOD + "environment: other\n")
        assert "environment: other" in shell.run("config", "show", env={"CDC_CONFIG": "other.yaml"}).output

    def test_the_option_wins_over_the_environment(self, shell: Shell) -> None:
        result = shell.run("-c", "cdc.yaml", "config", "show", env={"CDC_CONFIG": "missing.yaml"})
        assert result.exit_code == 0

    def test_an_empty_option_is_not_a_missing_one(self, shell: Shell) -> None:
        assert shell.run("-c", "", "config", "show").exit_code == 2

    def test_a_missing_file_says_how_to_get_one(self, shell: Shell) -> None:
        shell.file.unlink()
        result = shell.run("check")
        assert result.exit_code == 2
        assert "error: cdc.yaml: expected a configuration file, got: No such file" in result.stderr
        assert "cdc init --source DSN --lake DSN" in result.stderr
