"""``cdc status``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from cdc.cli.frame import Command, ExitCode, config_option, format_table, json_option, leave, load_config, print_json

if TYPE_CHECKING:
    from cdc.config import Config

_HEADER = ("SOURCE", "STATE", "POSITION", "LAG", "RPO", "BUDGET", "RECOVERY", "RTO", "RETAINED")
_TABLE_HEADER = ("SOURCE", "TABLE", "IN THE LAKE", "STATE", "CHANGES")
_UNKNOWN = "-"


@click.command(cls=Command)
@config_option
@json_option
@click.option("--watch", is_flag=True, help="Refresh until Ctrl-C.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds between refreshes."
)
def status(as_json: bool, watch: bool, interval: float) -> None:
    """Show how the running engine is doing.

    Per source: state, position, lag beside its RPO, what is left of the RPO's error budget, how long the backlog would
    take beside the RTO, and the log that the source keeps for us; then every table. If no engine answers, it shows what
    is durable in the lake.

    Exits with 0 if all is well, 3 if a source has failed or is beyond its RPO, and 1 if no engine runs.

    JSON: {"running": true, "environment": ..., "version": ..., "pid": ..., "started_at": UNIX seconds, "sources": [
      {"name": ..., "type": ..., "state": "starting" | "streaming" | "retrying" | "failed" | "stopped", "error": ...,
       "hint": ..., "position": ..., "committed_at": UNIX seconds, "lag_seconds": ..., "rpo_seconds": ...,
       "rto_seconds": ..., "rpo_breach_seconds_total": ..., "budget_remaining_ratio": 0 to 1,
       "recovery_estimate_seconds": ..., "retained_bytes": ..., "retain_bytes": ..., "buffered_bytes": ...,
       "spilled_bytes": ..., "transactions_total": ..., "tables": [{"table": ..., "target": ...,
       "state": "pending" | "copying" | "streaming" | "failed", "reason": ..., "changes": {op: count},
       "copied_rows": ...}]}]}
    With "running": false only name, type, state, position, committed_at, rpo_seconds, rto_seconds and, per table,
    table, target, state and reason are there.

    Examples:
      cdc status
      cdc status --watch
      cdc status --json | jq '.sources[] | {name, lag_seconds}'
    """
    if watch and as_json:
        raise click.UsageError("--watch and --json exclude each other")
    config = load_config()
    if watch:
        _watch(config, interval)
    snapshot = _snapshot(config)
    if as_json:
        print_json(snapshot)
    else:
        click.echo(render(snapshot))
    leave(exit_code(snapshot))


def exit_code(snapshot: Mapping[str, Any]) -> ExitCode:
    """Return what ``cdc status`` exits with."""
    if not snapshot["running"]:
        return ExitCode.FAILED
    bad = any(source["state"] == "failed" or _beyond_rpo(source) for source in snapshot["sources"])
    return ExitCode.BREACHED if bad else ExitCode.FINE


def render(snapshot: Mapping[str, Any]) -> str:
    """Return the snapshot as text for a terminal."""
    sources = snapshot["sources"]
    head = "no engine answers; this is what is durable in the lake"
    if snapshot["running"]:
        head = f"{snapshot['environment']}: cdc {snapshot['version']}, process {snapshot['pid']}"
    parts = [head, format_table(_HEADER, [_source_row(source) for source in sources])]
    rows = [_table_row(source["name"], table) for source in sources for table in source["tables"]]
    if rows:
        parts.append(format_table(_TABLE_HEADER, rows))
    problems = [line for source in sources for line in _problems(source)]
    return "\n\n".join([*parts, "\n".join(problems)] if problems else parts)


def _snapshot(config: Config) -> dict[str, Any]:
    from cdc.cli.engine_client import durable_status, running_status

    return running_status(config) or durable_status(config)


def _watch(config: Config, interval_seconds: float) -> None:
    """Show the status again and again, until interrupted."""
    try:
        from rich.live import Live
        from rich.text import Text
    except ImportError:
        raise click.UsageError("--watch needs the package rich: pip install 'mutable-lake-cdc[demo]'") from None
    with Live(Text(render(_snapshot(config))), auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(interval_seconds)
            live.update(Text(render(_snapshot(config))), refresh=True)


def _source_row(source: Mapping[str, Any]) -> tuple[str, ...]:
    budget = source.get("budget_remaining_ratio")
    return (
        source["name"],
        source["state"],
        _short(source["position"]),
        _seconds(source.get("lag_seconds")) + (" !" if _beyond_rpo(source) else ""),
        _seconds(source["rpo_seconds"]),
        _UNKNOWN if budget is None or source["rpo_seconds"] is None else f"{budget:.0%}",
        _seconds(source.get("recovery_estimate_seconds")),
        _seconds(source["rto_seconds"]),
        " of ".join(_bytes(source[name]) for name in ("retained_bytes", "retain_bytes") if source.get(name))
        or _UNKNOWN,
    )


def _bound(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f" of {_bytes(size_bytes)}"


def _table_row(source: str, table: Mapping[str, Any]) -> tuple[str, ...]:
    changes = table.get("changes")
    count = _UNKNOWN if changes is None else f"{sum(changes.values()):,}"
    copying = table["state"] == "copying" and table.get("copied_rows")
    state = f"copying ({table['copied_rows']:,} rows)" if copying else table["state"]
    return source, table["table"], table["target"], state, count


def _problems(source: Mapping[str, Any]) -> list[str]:
    lines = [f"{source['name']}: {source['error']}"] if source.get("error") else []
    lines += [f"  hint: {source['hint']}"] if source.get("hint") else []
    return lines + [f"{source['name']} {t['table']}: {t['reason']}" for t in source["tables"] if t["reason"]]


def _beyond_rpo(source: Mapping[str, Any]) -> bool:
    rpo, lag = source["rpo_seconds"], source.get("lag_seconds")
    return rpo is not None and lag is not None and bool(lag > rpo)


def _short(position: str | None) -> str:
    """Return the position in at most 40 characters; stored tokens are longer."""
    return _UNKNOWN if position is None else position if len(position) <= 40 else position[:37] + "..."


def _seconds(value: float | None) -> str:
    if value is None:
        return _UNKNOWN
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _bytes(value: float | None) -> str:
    if value is None:
        return _UNKNOWN
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
