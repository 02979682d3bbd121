"""The command line as a test drives it, and an engine for it to find."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner, Result
from fake_databases import CANARY, ENVIRON, GOOD, SOURCE_DSN

from cdc.cli.main import cli
from cdc.contracts import TableState
from cdc.metrics import build_registry
from cdc.status import EngineStatus, SourceState, SourceStatus, TableStatus
from cdc.web import WebServer

LEAKY = f"could not connect to {SOURCE_DSN}: connection refused"

ORDERS = TableStatus(
    table="public.orders", target="shop.orders", state=TableState.STREAMING, changes={"c": 1200, "u": 34}
)
SHOP = SourceStatus(
    name="shop",
    type="postgres",
    state=SourceState.STREAMING,
    position="0/16B3748",
    lag_seconds=0.25,
    rpo_seconds=30.0,
    rto_seconds=900.0,
    recovery_estimate_seconds=95.0,
    retained_bytes=3 * 2**20,
    tables=(ORDERS,),
)
STATUS = EngineStatus(environment="test", version="1.2.3", pid=4242, started_at=0.0, sources=(SHOP,))


class Shell:
    """Runs the command line in a directory of its own, and makes sure that no run ever prints a password."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "cdc.yaml"

    def write(self, text: str = GOOD) -> None:
        self.file.write_text(text)

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> Result:
        result = CliRunner().invoke(cli, list(arguments), prog_name="cdc", env={**ENVIRON, **(env or {})})
        assert CANARY not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result


@contextmanager
def engine(shell: Shell, status: EngineStatus = STATUS) -> Iterator[None]:
    """Serve ``status`` where the configuration says."""
    registry, _ = build_registry(lambda: status)
    server = WebServer("127.0.0.1:0", status=lambda: status, alive=lambda: True, registry=registry)
    server.start()
    shell.write(GOOD + f"http: 127.0.0.1:{server.port}\n")
    try:
        yield
    finally:
        server.stop()
