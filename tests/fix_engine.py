"""The engine for tests: ``cdc run`` in a process of its own, between two databases, watched until it has caught up.

``engine.wait_until_identical()`` is the usual end of a test: every table has been copied, the source's slot is
confirmed behind the last commit, and only then, once and without a second chance, the oracle compares. So it also
proves that nothing is acknowledged before it can be seen in the lake.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from oracle import Comparison, Pair, differences, tables_of

from cdc.demo.engine_process import EngineProcess
from cdc.demo.server import free_port

POLL_SECONDS = 0.02
TIMEOUT_SECONDS = 30.0

MakeEngine = Callable[..., "EngineHarness"]


def until(ready: Callable[[], Any], *, timeout: float = TIMEOUT_SECONDS, what: Callable[[], str] | str = "") -> Any:
    """Poll until ``ready`` returns something true, and return it; fail when it doesn't in time."""
    deadline = time.monotonic() + timeout
    while not (found := ready()):
        if time.monotonic() > deadline:
            said = what() if callable(what) else what
            pytest.fail(f"not so after {timeout:.0f} s: {said}")
        time.sleep(POLL_SECONDS)
    return found


class LaunchedEngine(EngineProcess):
    """An engine started by a command of the test's own."""

    def __init__(self, config: Path, *, http: str, log: Path, command: Sequence[str]) -> None:
        super().__init__(config, http=http, log=log)
        self._command = list(command)


class EngineHarness:
    """One configuration with one source, and the engine that runs it.

    Args:
        source_dsn, lake_dsn: the two databases.
        tables: the source's patterns.
        schema: where the copies go.
        options: further keys of the source.
    """

    def __init__(
        self,
        directory: Path,
        source_dsn: str,
        lake_dsn: str,
        *,
        name: str = "shop",
        schema: str = "lake",
        tables: Sequence[str] = ("public.*",),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self.schema = name, schema
        self.source_dsn, self.lake_dsn = source_dsn, lake_dsn
        self.config = directory / "cdc.yaml"
        self.http = f"127.0.0.1:{free_port()}"
        self.source_options: dict[str, Any] = {
            "type": "postgres",
            "url": source_dsn,
            "tables": list(tables),
            "schema": schema,
            "rpo": "30s",
            "discover": "300ms",
            **(options or {}),
        }
        self.write_config()
        self.process = EngineProcess(self.config, http=self.http, log=directory / "engine.log")
        self.tolerates_bugs = False

    def write_config(self) -> None:
        """Write cdc.yaml anew, from what the attributes say now."""
        document = {
            "environment": "test",
            "http": self.http,
            "lake": {"type": "postgres", "url": self.lake_dsn},
            "sources": {self.name: self.source_options},
        }
        self.config.write_text(json.dumps(document, indent=2))

    @property
    def slot(self) -> str:
        """The replication slot's name."""
        return str(self.source_options.get("slot") or f"cdc_{self.name}")

    @property
    def log(self) -> str:
        """All that it has logged, over restarts."""
        return self.process.log.read_text(errors="replace") if self.process.log.exists() else ""

    def launch_with(self, script: Path, *arguments: str) -> None:
        """From now on start it by a script, which gets the configuration and the arguments."""
        command = [sys.executable, str(script), str(self.config), *arguments]
        self.process = LaunchedEngine(self.config, http=self.http, log=self.process.log, command=command)

    def launch_as_usual(self) -> None:
        """From now on start it by ``cdc run`` again."""
        self.process = EngineProcess(self.config, http=self.http, log=self.process.log)

    def start(self, *, ready: bool = True) -> None:
        """Start it, and wait until it streams."""
        self.process.start()
        if ready:
            self.process.wait_until_ready(TIMEOUT_SECONDS)

    def stop(self) -> int:
        """Stop it with SIGTERM; return its exit code."""
        return self.end(lambda process: process.terminate())

    def kill(self) -> None:
        """Stop it with SIGKILL."""
        self.process.kill()

    def end(self, act: Callable[[subprocess.Popen[bytes]], None] = lambda _: None, *, timeout: float = 20.0) -> int:
        """Wait for it to end, perhaps after having done something to it; return its exit code."""
        running = self.process._process
        assert running is not None, "the engine wasn't started"
        act(running)
        try:
            code = running.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the engine didn't end within {timeout:.0f} s:\n{self.tail()}")
        self.process.kill()
        return code

    def restart(self) -> None:
        """Stop it in an orderly way, and start it again."""
        self.stop()
        self.start()

    def cdc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of the command line on the same configuration."""
        command = [sys.executable, "-m", "cdc", "--config", str(self.config), *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    def tail(self, lines: int = 25) -> str:
        """Return the end of the log."""
        return "\n".join(self.log.splitlines()[-lines:])

    def status(self) -> dict[str, Any]:
        """Return what it says of the source; empty while it doesn't answer."""
        found = self.process.status()
        return found["sources"][0] if found else {}

    def table(self, name: str) -> dict[str, Any]:
        """Return what it says of one table of schema public (or ``schema.name``); empty if it doesn't know it."""
        full = name if "." in name else f"public.{name}"
        return next((t for t in self.status().get("tables", ()) if t["table"] == full), {})

    def wait_for_state(self, table: str, state: str, *, timeout: float = TIMEOUT_SECONDS) -> dict[str, Any]:
        """Wait until a table is in this state; return what the engine says of it."""
        return until(
            lambda: self._alive() and (found := self.table(table)).get("state") == state and found,
            timeout=timeout,
            what=lambda: f"table {table} {state}, but {self.table(table)}\n{self.tail()}",
        )

    def wait_for_source_state(self, *states: str, timeout: float = TIMEOUT_SECONDS) -> dict[str, Any]:
        """Wait until the source is in one of these states; return what the engine says of it."""
        return until(
            lambda: (found := self.status()).get("state") in states and found,
            timeout=timeout,
            what=lambda: f"source {states}, but {self.status().get('state')}\n{self.tail()}",
        )

    def wait_for_log(self, pattern: str, *, timeout: float = TIMEOUT_SECONDS) -> re.Match[str]:
        """Wait until the log has a match of this pattern."""
        return until(
            lambda: re.search(pattern, self.log), timeout=timeout, what=lambda: f"log has {pattern!r}\n{self.tail()}"
        )

    def wait_until_durable(self, tables: Sequence[str] = (), *, timeout: float = TIMEOUT_SECONDS) -> None:
        """Wait until these tables stream, and everything committed at the source by now is confirmed to it."""
        with psycopg.connect(self.source_dsn, autocommit=True) as source:
            # What a transaction that still runs has written may not be flushed, and is nothing to wait for.
            flushed = value(source, "SHOW synchronous_commit") != "off"
            lsn = value(source, f"SELECT pg_current_wal_{'flush' if flushed else 'insert'}_lsn()::text")
            query = "SELECT confirmed_flush_lsn >= %s FROM pg_replication_slots WHERE slot_name = %s"

            def durable() -> bool:
                found = source.execute(query, [lsn, self.slot]).fetchone()
                return bool(found and found[0] and self._streaming(tables))

            until(durable, timeout=timeout, what=lambda: f"caught up with {lsn}\n{self.status()}\n{self.tail()}")

    def wait_until_identical(
        self, tables: Sequence[str] | None = None, *, timeout: float = TIMEOUT_SECONDS, schema: str = "public"
    ) -> None:
        """Wait until all is durable, then compare these tables (default: all of the schema), once.

        Fails at once if one of them has failed, since it will not become identical by itself.
        """
        names = tables_of(self.source_dsn, schema) if tables is None else list(tables)
        assert names, "nothing to compare"
        self.wait_until_durable([f"{schema}.{name}" for name in names], timeout=timeout)
        found = self.differences(names, schema=schema)
        assert not found, f"{'; '.join(map(str, found))}\n{[f.examples for f in found]}\n{self.tail()}"

    def differences(self, tables: Sequence[str], *, schema: str = "public") -> list[Comparison]:
        """Compare now."""
        pairs = [Pair(source=(schema, name), lake=(self.schema, name)) for name in tables]
        return differences(self.source_dsn, self.lake_dsn, pairs)

    def poll_until_identical(self, tables: Sequence[str], *, timeout: float = TIMEOUT_SECONDS) -> None:
        """Compare until there is no difference; for where something holds the confirmation back."""
        until(
            lambda: self._alive() and not self.differences(tables),
            timeout=timeout,
            what=lambda: f"identical: {[str(d) for d in self.differences(tables)]}\n{self.tail()}",
        )

    def _alive(self) -> bool:
        self.process.check()
        return True

    def _streaming(self, tables: Sequence[str]) -> bool:
        self.process.check()
        states = {t["table"]: t for t in self.status().get("tables", ())}
        for name in tables:
            found = states.get(name)
            assert not (found and found["state"] == "failed"), f"{name} failed: {found['reason']}\n{self.tail()}"
            if not found or found["state"] != "streaming":
                return False
        return bool(states) or not tables


@pytest.fixture
def make_engine(request: pytest.FixtureRequest) -> Iterator[MakeEngine]:
    """Make engines: ``make_engine(source_dsn, lake_dsn, ...)``; what runs at the end is killed, by its process id."""
    made: list[EngineHarness] = []
    directories: list[Path] = []

    def make(source_dsn: str, lake_dsn: str, **keys: Any) -> EngineHarness:
        directories.append(Path(tempfile.mkdtemp(prefix="cdc-engine-", dir="/tmp")))
        made.append(EngineHarness(directories[-1], source_dsn, lake_dsn, **keys))
        return made[-1]

    yield make
    for engine in made:
        engine.kill()
    logs = [engine.log for engine in made if not engine.tolerates_bugs]
    keep = os.environ.get("CDC_TEST_KEEP_LOGS")
    for directory in directories:
        if keep and (directory / "engine.log").exists():
            shutil.copy(directory / "engine.log", Path(keep) / f"{request.node.name[:80].replace('/', '_')}.log")
        shutil.rmtree(directory, ignore_errors=True)
    for log in logs:
        assert "Traceback" not in log, f"the engine had a bug:\n{log[-6000:]}"


@pytest.fixture
def engine(source_dsn: str, lake_dsn: str, make_engine: MakeEngine) -> EngineHarness:
    """An engine between the test's own source and lake databases, not started yet."""
    return make_engine(source_dsn, lake_dsn)


@pytest.fixture
def source(source_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A user's connection to the source, in autocommit mode."""
    with connected(source_dsn) as connection:
        yield connection


@pytest.fixture
def lake(lake_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A user's connection to the lake, in autocommit mode."""
    with connected(lake_dsn) as connection:
        yield connection


@contextlib.contextmanager
def connected(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """Open a connection in autocommit mode; closing it never hides the error that ended the test."""
    connection = psycopg.connect(dsn, autocommit=True)
    try:
        yield connection
    finally:
        with contextlib.suppress(psycopg.Error):
            connection.close()


def value(connection: psycopg.Connection[Any], query: str, parameters: Sequence[Any] = ()) -> Any:
    """Return the only value of a query."""
    row = connection.execute(query.encode(), parameters or None).fetchone()
    return row[0] if row else None
