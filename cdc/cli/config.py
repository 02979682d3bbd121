"""``cdc config schema`` and ``cdc config show``."""

from __future__ import annotations

import click

from cdc.cli.frame import Group, config_option, json_option, load_config, print_json


@click.group(cls=Group)
@config_option
def config() -> None:
    """Show the configuration, or what may be in it."""


@config.command()
def schema() -> None:
    """Print the JSON Schema of cdc.yaml.

    It holds the keys of every installed connector and sink. Editors complete and check the file with it.

    Example:
      cdc config schema > cdc.schema.json
      # first line of cdc.yaml, for editors with a YAML language server:
      # yaml-language-server: $schema=cdc.schema.json
    """
    from cdc.config_document import config_schema

    print_json(config_schema())


@config.command()
@config_option
@json_option
def show(as_json: bool) -> None:
    """Print the configuration as the engine understands it.

    Defaults are filled in, ${VARIABLES} and secret files are read, and passwords are masked.
    """
    from cdc.config_document import masked

    values = masked(load_config())
    if as_json:
        print_json(values)
        return
    import yaml

    click.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)
