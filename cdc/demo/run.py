"""``cdc demo``: two databases, traffic, an analyst, a lag probe, the engine between them, crashes, and a verdict.

Whatever it starts it stops, by process id, however it ends; all its files are in one temporary directory.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

import yaml

from cdc.demo.compare import Pair, compare
from cdc.demo.engine_process import EngineProcess
from cdc.demo.enrich import Enrichment
from cdc.demo.lag import LagProbe
from cdc.demo.sample import Rate, RowCounts, all_streaming, source_status
from cdc.demo.server import PostgresServer, free_port
from cdc.demo.shop import TABLES, create_shop
from cdc.demo.traffic import BULK_ROWS, Traffic
from cdc.demo.verdict import Verdict
from cdc.demo.view import Frame, View, choose

SOURCE = "shop"
RPO_SECONDS = 10.0
EXIT_INTERRUPTED = 130

_TICK_SECONDS = 0.25
_READY_SECONDS = 30.0
_FIRST_LOAD_SECONDS = 60.0
_CATCH_UP_SECONDS = 60.0
_BULK_SECONDS = 30.0
_DOWN_SECONDS = 1.0


def run_demo(*, seconds: float = 30, as_json: bool = False, keep: bool = False) -> int:
    """Run the demo.

    Args:
        seconds: how long the traffic runs once everything is up.
        as_json: print one JSON object at the end and nothing else.
        keep: leave everything running after the verdict, until Ctrl-C.

    Returns:
        the exit code: 0 identical, 4 differences, 130 interrupted.

    Raises:
        OperatorError: a server or the engine didn't start, or the engine ended by itself.
    """
    with _terminable(), ExitStack() as stack:
        try:
            demo = Demo(stack, seconds=seconds, tcp=keep)
            with choose(as_json=as_json) as view:
                verdict = demo.run(view)
            print(json.dumps(verdict.to_json()) if as_json else "\n".join(verdict.lines()), flush=True)  # noqa: T201
            if keep:
                demo.stay(sys.stderr if as_json else sys.stdout)
        except KeyboardInterrupt:
            stack.close()
            print("stopped; nothing is left running", file=sys.stderr)  # noqa: T201
            return EXIT_INTERRUPTED
        return verdict.exit_code


class Demo:
    """One run.

    Args:
        stack: gets the clean-up of everything that is started.
        tcp: let the servers listen on 127.0.0.1 too.
    """

    def __init__(self, stack: ExitStack, *, seconds: float, tcp: bool = False) -> None:
        self._stack = stack
        self._seconds = seconds
        self._directory = Path(tempfile.mkdtemp(prefix="cdc-demo-"))
        self._directory.chmod(0o755)  # the account that runs the servers has to pass through
        stack.callback(shutil.rmtree, self._directory, ignore_errors=True)
        self._source_server = PostgresServer(self._directory / "source", name="source", tcp=tcp)
        self._lake_server = PostgresServer(self._directory / "lake", name="lake", tcp=tcp)
        self._http = f"127.0.0.1:{free_port()}"
        self._rate = Rate()
        self._began = time.monotonic()
        self._phase = "starting"
        self._kills = 0

    def run(self, view: View) -> Verdict:
        """Run from the empty directory to the verdict."""
        view.say("starting two PostgreSQL servers: a shop, and a lake")
        self._start(view)
        self._traffic.start()
        self._enrichment.start()
        with RowCounts(self._source_dsn, self._lake_dsn, SOURCE) as self._counts:
            self._start_engine(view)
            self._first_load(view)
            self._main_part(view)
            caught_up = self._finish(view)
        return Verdict(
            seconds=time.monotonic() - self._began,
            caught_up=caught_up,
            tables=compare(
                self._source_dsn, self._lake_dsn, [Pair(("public", name), (SOURCE, name)) for name in TABLES]
            ),
            changes=self._traffic.changes,
            kills=self._kills,
            survival=self._enrichment.survival(),
            lag_p50_seconds=self._probe.percentile(0.50),
            lag_p99_seconds=self._probe.percentile(0.99),
        )

    def stay(self, out: TextIO) -> None:
        """Say how to reach everything, and wait until Ctrl-C; raises KeyboardInterrupt then."""
        text = f"""
Still running, until Ctrl-C:
  source   psql '{self._source_server.dsn(SOURCE)}'
           {self._source_server.tcp_dsn(SOURCE)}
  lake     psql '{self._lake_server.dsn("lake")}'
           {self._lake_server.tcp_dsn("lake")}
  engine   http://{self._http}/metrics  http://{self._http}/api/status
           cdc --config {self._directory / "cdc.yaml"} status
Change a row of the source's public.customers and look at the lake's {SOURCE}.customers."""
        print(text, file=out, flush=True)
        while True:
            self._engine.check()
            time.sleep(_TICK_SECONDS)

    def _start(self, view: View) -> None:
        for server in (self._source_server, self._lake_server):
            self._stack.callback(server.stop, "immediate")
            server.start()
        self._source_dsn = self._source_server.create_database(SOURCE)
        self._lake_dsn = self._lake_server.create_database("lake")
        create_shop(self._source_dsn)
        view.say(f"PostgreSQL {self._source_server.version}: source and lake are up, the shop has its first rows")
        config = self._directory / "cdc.yaml"
        config.write_text(yaml.safe_dump(self._config(), sort_keys=False))
        self._engine = EngineProcess(config, http=self._http, log=self._directory / "engine.log")
        self._traffic = Traffic(self._source_dsn)
        self._enrichment = Enrichment(self._lake_dsn, SOURCE)
        self._probe = LagProbe(self._source_dsn, self._lake_dsn, SOURCE)
        self._stack.callback(self._engine.kill)

    def _config(self) -> dict[str, object]:
        return {
            "environment": "demo",
            "http": self._http,
            "lake": {"type": "postgres", "url": self._lake_dsn},
            "sources": {
                SOURCE: {
                    "type": "postgres",
                    "url": self._source_dsn,
                    "tables": ["public.*"],
                    "rpo": f"{RPO_SECONDS:.0f}s",
                }
            },
        }

    def _start_engine(self, view: View) -> None:
        began = time.monotonic()
        self._engine.start()
        self._engine.wait_until_ready(_READY_SECONDS)
        view.say(f"the engine runs, {time.monotonic() - began:.1f} s after its start")

    def _first_load(self, view: View) -> None:
        self._phase = "first load, under traffic"
        deadline = time.monotonic() + _FIRST_LOAD_SECONDS
        while not all_streaming(self._engine.status(), SOURCE) and time.monotonic() < deadline:
            self._tick(view)
        self._counts.refresh(now=True)
        view.say("every table has its first copy and follows the source; an analyst adds a column of their own")
        self._probe.start()

    def _main_part(self, view: View) -> None:
        """Go through the programme; the times are shares of the run."""
        self._phase = "traffic"
        began = time.monotonic()
        for share, act in ((0.4, self._crash_in_bulk_load), (0.6, self._truncate), (0.75, self._crash), (1.0, None)):
            while time.monotonic() < began + share * self._seconds:
                self._tick(view)
            if act is not None:
                act(view)

    def _crash_in_bulk_load(self, view: View) -> None:
        view.say(f"bulk load: {BULK_ROWS:,} rows in one transaction")
        self._traffic.bulk_load(_BULK_SECONDS)
        self._crash(view)

    def _truncate(self, view: View) -> None:
        self._traffic.truncate(_BULK_SECONDS)
        view.say("page_views was truncated at the source")

    def _crash(self, view: View) -> None:
        self._engine.kill()
        self._kills += 1
        self._phase = "no engine"
        view.say("engine killed with SIGKILL; the traffic goes on")
        until = time.monotonic() + _DOWN_SECONDS
        while time.monotonic() < until:
            self._tick(view)
        self._start_engine(view)
        self._phase = "traffic"

    def _finish(self, view: View) -> bool:
        """Stop everybody and wait until the lake has the last commit; return whether it has."""
        self._phase = "catching up"
        self._traffic.stop()
        self._enrichment.stop()
        self._probe.stop()
        view.say("the traffic has stopped; waiting for its last commit to arrive")
        deadline = time.monotonic() + _CATCH_UP_SECONDS
        arrived = self._probe.wait_for_last(_CATCH_UP_SECONDS)
        while not all_streaming(self._engine.status(), SOURCE) and time.monotonic() < deadline:
            self._tick(view)
        arrived = arrived and all_streaming(self._engine.status(), SOURCE)
        self._phase = "comparing every row"
        self._counts.refresh(now=True)
        self._tick(view)
        return arrived

    def _tick(self, view: View) -> None:
        """Draw a frame, look after everybody, and wait a moment."""
        self._engine.check()
        for worker in (self._traffic, self._enrichment, self._probe):
            worker.check()
        self._counts.refresh()
        status = source_status(self._engine.status(), SOURCE)
        frame = Frame(
            elapsed_seconds=time.monotonic() - self._began,
            phase=self._phase,
            rows=self._counts.rows,
            changes=self._traffic.changes,
            changes_per_second=self._rate.per_second(self._traffic.changes),
            lag_seconds=status.get("lag_seconds"),
            rpo_seconds=RPO_SECONDS,
            budget_remaining_ratio=status.get("budget_remaining_ratio"),
        )
        view.show(frame)
        time.sleep(_TICK_SECONDS)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM clean up as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
