"""``cdc init``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cdc.cli.frame import Command, config_file, config_option
from cdc.errors import ConfigError

if TYPE_CHECKING:
    from cdc.schema import TableId, TableSchema

_SCHEMES = {"postgresql": "postgres"}
"""Plugin by URL scheme, where they differ."""


_MAX_LISTED_TABLES = 200

_FILE = """\
# Written by cdc init. All keys: cdc config schema. What is missing at the databases: cdc check.

environment: development  # a label for status, as in production
http: 127.0.0.1:8080      # /metrics, /healthz, /readyz, /api/status; null for nowhere

lake:
  type: {lake_type}
  url: {lake_url}

sources:
  {name}:                 # also the lake schema of the copies, unless the key schema names another
    type: {source_type}
    url: {source_url}
    tables:
{patterns}
      # - "!public.sessions"  # leaves one out; the last pattern that matches decides
    rpo: 30s              # a commit should be durable in the lake after this long
    rto: 15m              # catching up after a stop should take no longer
    # retain: 10GiB       # the most log that the source may keep for us
{found}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Database:
    """One of the two databases.

    Attributes:
        kind: the plugin that opens it.
        variable: the environment variable that the file refers to if the DSN holds a password; None otherwise.
    """

    dsn: str
    kind: str
    variable: str | None

    @property
    def reference(self) -> str:
        """What the file says, as a YAML scalar."""
        return json.dumps(self.dsn.replace("$", "$$") if self.variable is None else f"${{{self.variable}}}")


@click.command(cls=Command)
@config_option
@click.option("--source", required=True, metavar="DSN", help="The database to copy from.")
@click.option("--lake", required=True, metavar="DSN", help="The database to copy into.")
@click.option("--name", metavar="NAME", help="The source's name.  [default: its database's]")
@click.option("-o", "--output", metavar="FILE", help="Where to write.  [default: the -c file, ./cdc.yaml]")
@click.option("--force", is_flag=True, help="Overwrite the file.")
def init(source: str, lake: str, name: str | None, output: str | None, force: bool) -> None:
    """Look at a source and a lake, and write a commented cdc.yaml.

    Changes neither of them. A DSN with a password isn't written down: the file refers to an environment variable, and
    the line that sets it is printed.

    Examples:
      cdc init --source postgresql://cdc@db1/shop --lake postgresql://cdc@lake/lake
      cdc init --source "$SHOP_DSN" --lake "$LAKE_DSN" --name shop -o /etc/cdc/cdc.yaml
    """
    path = config_file() if output is None else Path(output)
    if path.exists() and not force:
        raise ConfigError(f"{path}: expected no such file yet, got one", hint="choose another with -o, or add --force")
    name = _name_of(source) if name is None else name
    from_ = _database(source, "cdc.connectors", "SOURCE_URL" if name == "lake" else f"{name.upper()}_URL")
    to = _database(lake, "cdc.sinks", "LAKE_URL")
    tables, problem_count = _look(name, from_, to)
    _write(path, _text(name, from_, to, tables))
    click.echo(f"wrote {path}; tables found in {name}: {len(tables)}")
    _report((from_, to), problem_count)


def _name_of(dsn: str) -> str:
    """Return a source name made of the database's; ``source`` where there is none."""
    from cdc.secrets import mask_dsn

    shown = mask_dsn(dsn)
    match = re.search(r"dbname='?(\w+)", shown) or re.search(r"://[^/]*/(\w+)", shown)
    name = re.sub(r"[^a-z0-9_]", "_", match[1].lower())[:31] if match else ""
    return name if re.match(r"[a-z]", name) else "source"


def _database(dsn: str, group: str, variable: str) -> _Database:
    """Find out which plugin the DSN is for: by its scheme, or the only one installed.

    Raises:
        ConfigError: no plugin fits.
    """
    from cdc import plugins
    from cdc.secrets import holds_secret

    kinds = plugins.kinds(group)
    scheme = re.match(r"([a-z][a-z0-9+.-]*)://", dsn)
    kind = _SCHEMES.get(scheme[1], scheme[1]) if scheme else kinds[0] if len(kinds) == 1 else ""
    if kind not in kinds:
        raise ConfigError(
            f"expected a DSN for one of {', '.join(kinds) or 'no installed plugin'}, got one for {kind or 'none'}",
            hint="write it as a URL, as in postgresql://user@host/database",
        )
    return _Database(dsn=dsn, kind=kind, variable=variable if holds_secret(dsn) else None)


def _look(name: str, source: _Database, lake: _Database) -> tuple[Mapping[TableId, TableSchema], int]:
    """Return the source's tables, and how many errors and warnings ``cdc check`` would list.

    Raises:
        CdcError: a DSN or the name is wrong, or the source can't be read.
    """
    from cdc.cli.databases import open_lake, open_sources
    from cdc.config_loader import parse

    environ = {database.variable: database.dsn for database in (source, lake) if database.variable}
    config = parse(_text(name, source, lake, {}), environ, "the new file")
    with open_sources(config) as sources:
        tables = sources[name].tables()
        findings = [*sources[name].check(), *open_lake(config).check()]
    return tables, sum(finding.severity.value != "ok" for finding in findings)


def _text(name: str, source: _Database, lake: _Database, tables: Mapping[TableId, TableSchema]) -> str:
    """Return the file; without tables its pattern selects all."""
    from cdc.selection import quote

    patterns = [f"{quote(schema)}.*" for schema in sorted({table.schema for table in tables})] or ["*.*"]
    listed = [" ".join(f"{quote(t.schema)}.{quote(t.name)}".split()) for t in sorted(tables)]
    more = [f"and {len(listed) - _MAX_LISTED_TABLES} more"] if len(listed) > _MAX_LISTED_TABLES else []
    found = [f"    # tables found: {len(listed)}", *(f"    #   {text}" for text in listed[:_MAX_LISTED_TABLES] + more)]
    return _FILE.format(
        name=name,
        source_type=source.kind,
        source_url=source.reference,
        lake_type=lake.kind,
        lake_url=lake.reference,
        patterns="\n".join(f"      - {json.dumps(pattern, ensure_ascii=False)}" for pattern in patterns),
        found="\n".join(found) + "\n",
    )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: expected a file that can be written, got: {error.strerror}", hint="choose another with -o"
        ) from None


def _report(databases: Sequence[_Database], problem_count: int) -> None:
    """Say what to do next, on stdout."""
    from cdc.secrets import MASK, mask_dsn

    referred = [database for database in databases if database.variable]
    if referred:
        click.echo("passwords stay out of it; set these to the DSNs that you gave:")
    for database in referred:
        click.echo(f"  export {database.variable}='{mask_dsn(database.dsn).replace(MASK, '...')}'")
    what = f"problems found: {problem_count}" if problem_count else "nothing to mend"
    click.echo(f"next: cdc check ({what}), cdc plan, cdc run")
