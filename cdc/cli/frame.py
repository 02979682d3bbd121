"""What all commands share: the ``-c`` option, errors with hints, exit codes, and the ways to print.

Exit codes: 0 fine, 1 failed, 2 usage or configuration, 3 objective breached, 4 differences found.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from cdc.errors import CdcError, ConfigError, OperatorError

if TYPE_CHECKING:
    from cdc.config import Config

_F = TypeVar("_F", bound=Callable[..., Any])
_FILE = "cdc.config_file"
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class ExitCode(IntEnum):
    """What the process tells its caller."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    BREACHED = 3
    DIFFERENT = 4


class Command(click.Command):
    """A command whose help keeps the line breaks of paragraphs with indented lines."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = _keep_layout(self.help)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = _keep_layout(self.help)


class RootGroup(Group):
    """The command line as a whole: ends with the documented exit codes, and says what to do about an error."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run the command line and exit."""
        kwargs["standalone_mode"] = False
        raise SystemExit(self._run(args, kwargs))

    def _run(self, args: Sequence[Any], kwargs: dict[str, Any]) -> int:
        try:
            code = super().main(*args, **kwargs)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            return ExitCode.USAGE
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "cdc"
            click.echo(f"error: {error.format_message()}\ntry: {command} --help", err=True)
            return ExitCode.USAGE
        except click.ClickException as error:
            click.echo(f"error: {error.format_message()}", err=True)
            return ExitCode.FAILED
        except click.Abort:
            return _INTERRUPTED
        except CdcError as error:
            show_error(error)
            return ExitCode.USAGE if isinstance(error, ConfigError) else ExitCode.FAILED
        return int(code) if isinstance(code, int) else ExitCode.FINE


def _keep_layout(text: str | None) -> str | None:
    """Mark paragraphs with indented lines as click wants it, so that it doesn't wrap them."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(f"\b\n{part}" if "\n  " in part else part for part in paragraphs) or None


def config_option(command: _F) -> _F:
    """Add ``-c/--config``; given several times along the command path, the innermost wins."""

    def remember(context: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            context.meta[_FILE] = value

    option = click.option(
        "-c",
        "--config",
        metavar="FILE",
        expose_value=False,
        callback=remember,
        help="The configuration file.  [default: $CDC_CONFIG, then ./cdc.yaml]",
    )
    return option(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON with stable fields.")


def config_file() -> Path:
    """Return the configuration file that this call of the command line is about."""
    chosen = click.get_current_context().meta.get(_FILE)
    return Path(os.environ.get("CDC_CONFIG") or "cdc.yaml" if chosen is None else chosen)


def load_config() -> Config:
    """Read the configuration file.

    Raises:
        ConfigError: it can't be read, or is wrong.
    """
    from cdc.config_loader import load

    return load(config_file())


def leave(code: ExitCode) -> NoReturn:
    """End the command with this exit code."""
    click.get_current_context().exit(code)


def show_error(error: CdcError) -> None:
    """Print what is wrong, and what to do where that is known, to stderr."""
    from cdc.secrets import redact

    hint = error.hint if isinstance(error, OperatorError) else ""
    for label, text in (("error", str(error)), ("hint", hint)):
        for line in redact(text).splitlines():
            click.echo(f"{click.style(f'{label}:', fg='red' if label == 'error' else 'cyan')} {line}", err=True)


def print_json(value: Any) -> None:
    """Print ``value`` as indented JSON."""
    import orjson

    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return lines with columns aligned to the left, two blanks apart; every row is as long as ``header``."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)]
    return "\n".join(line.rstrip() for line in lines)
