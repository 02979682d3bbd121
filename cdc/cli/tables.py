"""``cdc tables list`` and ``cdc tables resync``."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from cdc.cli.frame import Group, config_option, format_table, json_option, load_config, print_json
from cdc.errors import ConfigError, OperatorError

if TYPE_CHECKING:
    from cdc.config import Config
    from cdc.contracts import Progress, Sink
    from cdc.schema import TableId

_HEADER = ("SOURCE", "TABLE", "IN THE LAKE", "STATE", "REASON")
_FIELDS = ("table", "target", "state", "reason")


@click.group(cls=Group)
@config_option
def tables() -> None:
    """List the copied tables, or copy them again."""


@tables.command("list")
@config_option
@json_option
def list_tables(as_json: bool) -> None:
    """List every table that the engine knows, with its state.

    Asks the running engine; without one, the lake.

    JSON: {"running": true, "tables": [{"source": ..., "table": ..., "target": ..., "state": "pending" | "copying" |
      "streaming" | "failed", "reason": ...}]}
    """
    config = load_config()
    from cdc.cli.engine_client import durable_status, running_status

    snapshot = running_status(config) or durable_status(config)
    rows: list[dict[str, Any]] = [
        {"source": source["name"], **{field: table[field] for field in _FIELDS}}
        for source in snapshot["sources"]
        for table in source["tables"]
    ]
    if as_json:
        print_json({"running": snapshot["running"], "tables": rows})
    else:
        click.echo(format_table(_HEADER, [tuple(row.values()) for row in rows]) if rows else "no tables yet")


@tables.command()
@config_option
@click.argument("source")
@click.argument("names", metavar="[TABLE]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All tables of the source, and its position.")
@click.option("--yes", is_flag=True, help="Do it; without this, only say what would be done.")
def resync(source: str, names: Sequence[str], everything: bool, yes: bool) -> None:
    """Copy tables again at the next start.

    The copies in the lake stay readable as they are until the new ones take their place, and columns that the lake's
    users own survive. With --all the source's position is forgotten too: the way on after a lost replication slot.
    Refuses while the engine runs.

    Examples:
      cdc tables resync shop public.orders
      cdc tables resync shop public.orders --yes
      cdc tables resync shop --all --yes
    """
    if bool(names) == everything:
        raise click.UsageError("expected table names, or --all")
    config = load_config()
    from cdc.cli.databases import open_lake

    if source not in config.sources:
        raise ConfigError(f"expected a source of the configuration, got {source!r}", hint=_near(source, config.sources))
    lake = open_lake(config)
    stored = lake.progress().get(source)
    chosen = None if everything else _chosen(names, stored)
    _explain(source, chosen, stored)
    if not yes:
        click.echo("nothing was done; add --yes to do it")
        return
    _refuse_while_running(config)
    _record(config, lake, source, [str(table) for table in chosen] if chosen is not None else None)
    lake.forget(source, chosen)
    click.echo("done; it begins with the next: cdc run")


def _record(config: Config, lake: Sink, source: str, names: Sequence[str] | None) -> None:
    from cdc.state import open_store

    store = open_store(config.state.get_secret_value() if config.state else None, lake.state_engine)
    store.install()
    store.record("resync", source, {"tables": names or "all"})


def _chosen(names: Sequence[str], stored: Progress | None) -> list[TableId]:
    known = {str(table): table for table in (stored.tables if stored else ())}
    for name in names:
        if name not in known:
            raise ConfigError(f"expected a table that was copied, got {name!r}", hint=_near(name, known))
    return [known[name] for name in dict.fromkeys(names)]


def _near(name: str, known: Any) -> str:
    near = get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}?" if near else f"known are: {', '.join(known) or 'none'}"


def _explain(source: str, chosen: Sequence[TableId] | None, stored: Progress | None) -> None:
    if chosen is None:
        click.echo(f"forgets the position of {source} ({stored.position if stored else None})")
    for table in stored.tables if stored and chosen is None else chosen or ():
        target = stored.tables[table].target if stored else table
        click.echo(f"copies {source} {table} into {target} again")


def _refuse_while_running(config: Config) -> None:
    from cdc.cli.engine_client import running_status

    if config.http is None:
        click.echo("warning: http is null, so it can't be seen whether an engine runs; stop it first", err=True)
    elif (status := running_status(config)) is not None:
        raise OperatorError(
            f"expected a stopped engine, got one that runs as process {status['pid']}",
            hint="stop it (systemctl stop cdc, or SIGTERM), resync, and start it again",
        )
