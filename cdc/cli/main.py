"""The command ``cdc``."""

from __future__ import annotations

import click

from cdc.cli.check import check
from cdc.cli.config import config
from cdc.cli.demo import demo
from cdc.cli.frame import RootGroup, config_option
from cdc.cli.init import init
from cdc.cli.plan import plan
from cdc.cli.run import run
from cdc.cli.status import status
from cdc.cli.tables import tables

_DISTRIBUTION = "mutable-lake-cdc"


@click.group(
    cls=RootGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 fine, 1 failed, 2 usage or configuration, 3 objective breached, 4 differences found.",
)
@config_option
@click.version_option(package_name=_DISTRIBUTION, prog_name="cdc", message="%(prog)s %(version)s")
def cli() -> None:
    """Copies databases into a lake, change by change, exactly once.

    To begin:
      cdc demo                                   see it run, on databases of its own
      cdc init --source DSN --lake DSN           write cdc.yaml for yours
      cdc check && cdc plan && cdc run           what is missing, what will be made, go
    """


for _command in (demo, init, check, plan, run, status, tables, config):
    cli.add_command(_command)


def main() -> None:
    """Run the command line: the console script's entry."""
    cli.main(prog_name="cdc")
