from __future__ import annotations

import pytest
from cli_shell import LEAKY, Shell
from fake_databases import CANARY, ENVIRON, LAKE_DSN, SOURCE_DSN, World, table

from cdc.config_loader import parse
from cdc.contracts import Finding, Severity
from cdc.errors import SourceUnavailableError

WARNING = Finding(subject="table public.log", severity=Severity.WARNING, message="has no key", fix="ALTER TABLE log;")
ERROR = Finding(subject="wal_level", severity=Severity.ERROR, message="is replica", fix="ALTER SYSTEM SET\nwal_level;")


class TestInit:
    def test_the_written_file_holds_no_password_and_can_be_loaded(self, shell: Shell) -> None:
        shell.file.unlink()
        result = shell.run("init", "--source", SOURCE_DSN, "--lake", LAKE_DSN)
        assert result.exit_code == 0
        text = shell.file.read_text()
        assert CANARY not in text
        config = parse(text, ENVIRON)
        assert config.sources["shop"].url.get_secret_value() == SOURCE_DSN
        assert config.lake.url.get_secret_value() == LAKE_DSN
        assert config.sources["shop"].tables == ("public.*",)

    def test_the_variables_to_set_are_printed_without_the_passwords(self, shell: Shell) -> None:
        result = shell.run("init", "--source", SOURCE_DSN, "--lake", LAKE_DSN, "-o", "new.yaml")
        assert "  export SHOP_URL='postgresql://cdc:...@db1/shop'\n" in result.stdout
        assert "  export LAKE_URL='postgresql://cdc:...@lake/lake'\n" in result.stdout

    def test_dsns_without_a_password_are_written_as_they_are(self, shell: Shell) -> None:
        source, lake = "postgresql://cdc@db/a$b", "host=lake dbname=lake"
        result = shell.run("init", "--source", source, "--lake", lake, "-o", "new.yaml", "--name", "crm")
        config = parse((shell.directory / "new.yaml").read_text(), {})
        assert config.sources["crm"].url.get_secret_value() == source
        assert config.lake.url.get_secret_value() == lake
        assert "export" not in result.stdout

    def test_the_tables_found_are_listed_and_their_schemas_selected(self, shell: Shell, world: World) -> None:
        world.tables += [table("t", "Odd Schema"), table("new\nline", "audit")]
        shell.run("init", "--source", SOURCE_DSN, "--lake", LAKE_DSN, "--force")
        text = shell.file.read_text()
        assert "    # tables found: 4\n" in text
        assert "    #   public.orders\n" in text
        assert parse(text, ENVIRON).sources["shop"].tables == ('"Odd Schema".*', "audit.*", "public.*")

    def test_an_empty_source_selects_all_that_may_come(self, shell: Shell, world: World) -> None:
        world.tables.clear()
        shell.run("init", "--source", SOURCE_DSN, "--lake", LAKE_DSN, "--force")
        assert parse(shell.file.read_text(), ENVIRON).sources["shop"].tables == ("*.*",)

    def test_very_many_tables_are_not_all_listed(self, shell: Shell, world: World) -> None:
        world.tables[:] = [table(f"t{i:04}") for i in range(300)]
        shell.run("init", "--source", SOURCE_DSN, "--lake", LAKE_DSN, "--force")
        assert "    #   and 100 more\n" in shell.file.read_text()

    def test_a_file_that_is_there_is_not_overwritten(self, shell: Shell, world: World) -> None:
        before = shell.file.read_text()
        result = shell.run("init", "--source", SOURCE_DSN, "--lake", LAKE_DSN)
        assert result.exit_code == 2
        assert "cdc.yaml: expected no such file yet, got one" in result.stderr
        assert shell.file.read_text() == before
        assert world.opened == []

    def test_a_source_that_cannot_be_read_leaves_no_file(self, shell: Shell, world: World) -> None:
        world.broken_source = SourceUnavailableError(LEAKY)
        result = shell.run("init", "--source", SOURCE_DSN, "--lake", LAKE_DSN, "-o", "new.yaml")
        assert result.exit_code == 1
        assert not (shell.directory / "new.yaml").exists()

    def test_problems_found_are_counted(self, shell: Shell, world: World) -> None:
        world.source_findings += [ERROR, WARNING]
        result = shell.run("init", "--source", SOURCE_DSN, "--lake", LAKE_DSN, "--force")
        assert result.exit_code == 0
        assert "cdc check (problems found: 2)" in result.stdout

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--source", f"oracle://u:{CANARY}@h/d"], "expected a DSN for one of postgres, got one for oracle"),
            (["--name", "Shop"], "expected a source name of at most 31 letters"),
            (["--name", "cdc"], "expected a schema other than cdc"),
            (["--source", CANARY], "expected a DSN such as postgresql://user@host/database"),
            (["-o", "no/such/directory.yaml"], "expected a file that can be written, got: No such file"),
        ],
    )
    def test_wrong_arguments_are_refused(self, shell: Shell, words: list[str], message: str) -> None:
        result = shell.run("init", "--source", SOURCE_DSN, "--lake", LAKE_DSN, "--force", *words)
        assert result.exit_code == 2
        assert message in result.stderr

    @pytest.mark.parametrize(
        ("dsn", "name"),
        [
            ("postgresql://cdc@db/Web-Shop", "web"),
            ("host=db dbname=crm", "crm"),
            ("postgresql://cdc@db/", "source"),
            ("postgresql://cdc@db/9lives", "source"),
            ("postgresql://u:a@b@c/d", "source"),
        ],
    )
    def test_the_source_is_named_after_its_database(self, shell: Shell, dsn: str, name: str) -> None:
        shell.run("init", "--source", dsn, "--lake", LAKE_DSN, "--force")
        assert list(parse(shell.file.read_text(), {**ENVIRON, "SOURCE_URL": dsn}).sources) == [name]

    def test_a_source_called_lake_has_a_variable_of_its_own(self, shell: Shell) -> None:
        shell.run("init", "--source", SOURCE_DSN, "--lake", LAKE_DSN, "--force", "--name", "lake")
        config = parse(shell.file.read_text(), {"SOURCE_URL": SOURCE_DSN, "LAKE_URL": LAKE_DSN})
        assert config.sources["lake"].url.get_secret_value() == SOURCE_DSN
