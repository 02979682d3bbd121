"""``cdc run``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from cdc.cli.frame import Command, config_option, load_config

if TYPE_CHECKING:
    from cdc.log import LogFormat


@click.command(cls=Command)
@config_option
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def run(log_format: LogFormat, log_level: str) -> None:
    """Run the engine until SIGTERM or Ctrl-C.

    Makes what `cdc plan` lists, copies every selected table once, then follows its changes. Where it stopped, it goes
    on: the position is stored in the lake, in the transaction that writes the rows. Logs go to stderr. Under systemd it
    reports readiness and feeds the watchdog (Type=notify).

    Examples:
      cdc run
      cdc -c /etc/cdc/cdc.yaml run --log-format json
    """
    config = load_config()
    from cdc import log
    from cdc.engine import Engine

    log.setup(log_level, log_format)
    sys.exit(Engine(config).run())
