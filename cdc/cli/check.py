"""``cdc check``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from cdc.cli.frame import Command, ExitCode, config_option, json_option, leave, load_config, print_json

if TYPE_CHECKING:
    from cdc.contracts import Finding, Source

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


@click.command(cls=Command)
@config_option
@click.option("-v", "--verbose", is_flag=True, help="Also list what is fine.")
@json_option
def check(verbose: bool, as_json: bool) -> None:
    """Look at every setting, privilege and table that matters.

    Changes nothing. For everything that is missing it prints the SQL or the command that mends it.

    Exits with 1 if there is any error, 0 otherwise; warnings don't count.

    JSON: {"ok": true, "errors": 0, "warnings": 1, "findings": [{"place": "sources.shop" or "lake",
      "subject": ..., "severity": "ok" | "warning" | "error", "message": ..., "fix": ...}]}

    Examples:
      cdc check
      cdc check --json | jq -r '.findings[] | select(.fix != "") | .fix'
    """
    findings = _look()
    counts = {s: sum(f.severity.value == s for group in findings.values() for f in group) for s in _COLOURS}
    if as_json:
        print_json(_document(findings, counts))
    else:
        _print(findings, counts, verbose)
    leave(ExitCode.FAILED if counts["error"] else ExitCode.FINE)


def _look() -> dict[str, Sequence[Finding]]:
    """Return what was found, by place: the sources in the configuration's order, then the lake."""
    config = load_config()
    from cdc.cli.databases import open_lake, open_sources

    findings: dict[str, Sequence[Finding]] = {}
    with open_sources(config) as sources:
        for name, source in sources.items():
            findings[f"sources.{name}"] = _guarded(partial(_look_at, source, config.sources[name].lake_schema))
    findings["lake"] = _guarded(open_lake(config).check)
    return findings


def _look_at(source: Source, lake_schema: str) -> list[Finding]:
    """Return the source's findings, and an error for each table that can't have a name in the lake."""
    from cdc.contracts import Finding, Severity
    from cdc.topology import lake_names

    found = list(source.check())
    if any(finding.severity is Severity.ERROR for finding in found):
        return found
    _, refused = lake_names(lake_schema, source.tables())
    fix = "leave one of them out with a pattern such as !schema.table, or give it a source of its own"
    clashes = [
        Finding(subject=f"table {table}", severity=Severity.ERROR, message=reason, fix=fix)
        for table, reason in refused.items()
    ]
    return found + clashes


def _guarded(look: Callable[[], Sequence[Finding]]) -> Sequence[Finding]:
    """Return what ``look`` finds; an error is a finding too, so that the other databases are still looked at."""
    from cdc.contracts import Finding, Severity
    from cdc.errors import CdcError
    from cdc.secrets import redact

    try:
        return look()
    except CdcError as error:
        fix = getattr(error, "hint", "make sure that the database runs and that the url is right")
        return [Finding(subject="connection", severity=Severity.ERROR, message=redact(str(error)), fix=redact(fix))]


def _document(findings: Mapping[str, Sequence[Finding]], counts: Mapping[str, int]) -> dict[str, Any]:
    return {
        "ok": not counts["error"],
        "errors": counts["error"],
        "warnings": counts["warning"],
        "findings": [{"place": place, **asdict(finding)} for place, group in findings.items() for finding in group],
    }


def _print(findings: Mapping[str, Sequence[Finding]], counts: Mapping[str, int], verbose: bool) -> None:
    for place, group in findings.items():
        fine = sum(finding.severity.value == "ok" for finding in group)
        click.echo(click.style(place, bold=True) + f"  ({fine} of {len(group)} fine)")
        for finding in group:
            severity = finding.severity.value
            if severity != "ok" or verbose:
                label = click.style(f"{severity:7}", fg=_COLOURS[severity])
                click.echo(f"  {label}  {finding.subject}: {finding.message}")
            for line in finding.fix.splitlines():
                click.echo(f"           {click.style('fix:', fg='cyan')} {line}")
    click.echo(f"errors: {counts['error']}, warnings: {counts['warning']}")
