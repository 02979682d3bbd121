"""``cdc plan``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from cdc.cli.frame import Command, config_option, json_option, load_config, print_json

if TYPE_CHECKING:
    from cdc.contracts import Step


@click.command(cls=Command)
@config_option
@click.option("--sql", "only_sql", is_flag=True, help="Print the statements only.")
@json_option
def plan(only_sql: bool, as_json: bool) -> None:
    """List what `cdc run` would create or alter, at the sources and in the lake.

    Changes nothing. At a source that is a publication and a replication slot, and never anything else.

    JSON: {"steps": [{"place": "sources.shop" or "lake", "where": "source" or "lake", "summary": ..., "sql": ...}]}

    Examples:
      cdc plan
      cdc plan --sql > review.sql
    """
    steps = _steps()
    if as_json:
        print_json({"steps": [{"place": place, **asdict(step)} for place, group in steps.items() for step in group]})
    elif only_sql:
        for place, group in steps.items():
            _print_sql(place, group)
    else:
        _print(steps)


def _steps() -> Mapping[str, Sequence[Step]]:
    """Return the steps by place: the sources in the configuration's order, then the lake."""
    config = load_config()
    from cdc.cli.databases import open_lake, open_sources, targets

    steps: dict[str, Sequence[Step]] = {}
    lake = open_lake(config)
    lake_steps: dict[Step, None] = {}
    with open_sources(config) as sources:
        for name, source in sources.items():
            steps[f"sources.{name}"] = source.plan()
            wanted = targets(source.tables(), config.sources[name].lake_schema)
            lake_steps |= dict.fromkeys(lake.plan(wanted))  # what several sources need is made once
    return {**steps, "lake": list(lake_steps)}


def _print(steps: Mapping[str, Sequence[Step]]) -> None:
    for place, group in steps.items():
        click.echo(click.style(place, bold=True) + ("" if group else "  nothing to do"))
        for step in group:
            click.echo(f"  {step.summary}")
            for line in step.sql.splitlines():
                click.echo(click.style(f"      {line}", dim=True))


def _print_sql(place: str, steps: Sequence[Step]) -> None:
    if steps:
        click.echo(f"-- {place}")
    for step in steps:
        if step.sql:
            click.echo(step.sql.rstrip().removesuffix(";") + ";")
