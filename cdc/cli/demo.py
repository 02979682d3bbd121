"""``cdc demo``."""

from __future__ import annotations

import sys

import click

from cdc.cli.frame import Command, json_option


@click.command(cls=Command)
@click.option(
    "--seconds", type=click.FloatRange(min=1), default=30, show_default=True, help="How long the traffic lasts."
)
@click.option("--keep", is_flag=True, help="Leave everything running and print the DSNs, to explore with psql.")
@json_option
def demo(seconds: float, keep: bool, as_json: bool) -> None:
    """Show the whole pipeline on embedded databases.

    Starts two PostgreSQL servers of its own, a shop with traffic and a lake, lets the engine copy one into the other,
    kills it in the middle, and at the end compares every table row by row. Needs no configuration, and cleans up after
    itself.

    Exits with 0 if the copies are identical, 4 if they differ.

    Examples:
      cdc demo
      cdc demo --seconds 15 --json
      cdc demo --keep
    """
    from cdc.demo.run import run_demo

    sys.exit(run_demo(seconds=seconds, as_json=as_json, keep=keep))
