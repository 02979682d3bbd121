"""``cdc demo`` as a newcomer runs it: it ends well, it can end badly, and whatever happens it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from cdc.demo.run import Demo
from cdc.demo.view import Silent, View

pytestmark = pytest.mark.servers
DEADLINE_SECONDS = 90


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A temporary directory for the demo to work in; empty again afterwards, or emptied."""
    with tempfile.TemporaryDirectory(prefix="cdc-test-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def start(scratch: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cdc", "demo", *arguments],
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes(scratch: Path) -> list[str]:
    """Command lines of living processes that mention the directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(scratch) in command:
            found.append(command)
    return found


def wait_until_gone(scratch: Path) -> None:
    deadline = time.monotonic() + 20
    while left := processes(scratch):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def read_until(demo: subprocess.Popen[str], text: str) -> None:
    assert demo.stdout is not None
    for line in demo.stdout:
        if text in line:
            return
    pytest.fail(f"the demo ended before it said {text!r}: {demo.stderr.read() if demo.stderr else ''}")


def test_a_short_demo_ends_identical_and_leaves_nothing(scratch: Path) -> None:
    with start(scratch, "--seconds", "6", "--json") as demo:
        out, err = demo.communicate(timeout=DEADLINE_SECONDS)
    assert demo.returncode == 0, out + err
    verdict = json.loads(out)
    assert verdict["verdict"] == "identical"
    assert verdict["kills"] == 2
    assert verdict["changes"] > 50_000
    assert verdict["enrichment_survived"]
    assert {table["name"] for table in verdict["tables"]} > {"public.orders", "public.page_views"}
    assert all(table["identical"] for table in verdict["tables"])
    assert verdict["rows"] == sum(table["rows"] for table in verdict["tables"])
    assert 0 < verdict["lag"]["p50_seconds"] <= verdict["lag"]["p99_seconds"]
    assert list(scratch.iterdir()) == []
    assert processes(scratch) == []


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="not here: there is no /proc to look at")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(scratch: Path, number: signal.Signals) -> None:
    with start(scratch, "--seconds", "300") as demo:
        read_until(demo, "the engine runs")
        assert len(processes(scratch)) >= 3
        demo.send_signal(number)
        demo.communicate(timeout=30)
    assert demo.returncode == 130
    assert list(scratch.iterdir()) == []
    wait_until_gone(scratch)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="not here: there is no /proc to look at")
def test_a_killed_demo_leaves_no_process(scratch: Path) -> None:
    with start(scratch, "--seconds", "300") as demo:
        read_until(demo, "the engine runs")
        demo.kill()
        demo.communicate()
    wait_until_gone(scratch)


def test_a_demo_that_keeps_running_says_how_to_reach_everything(scratch: Path) -> None:
    with start(scratch, "--seconds", "2", "--keep") as demo:
        read_until(demo, "Still running")
        assert demo.stdout is not None
        lines = [next(demo.stdout).split() for _ in range(4)]
        for words in (lines[0], lines[2]):
            with psycopg.connect(words[-1].strip("'")) as connection:
                assert connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'public'").fetchone() == (
                    1,
                )
        for words in (lines[1], lines[3]):
            psycopg.connect(words[0]).close()
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=30)
    assert demo.returncode == 130
    assert list(scratch.iterdir()) == []


class Sabotaged(Demo):
    """A demo whose lake loses one row and gets another one wrong, unseen by the engine."""

    def _finish(self, view: View) -> bool:
        caught_up = super()._finish(view)
        with psycopg.connect(self._lake_dsn) as lake:
            lake.execute("DELETE FROM shop.customers WHERE id = (SELECT max(id) FROM shop.customers)")
            lake.execute("UPDATE shop.products SET price = price + 0.01 WHERE sku = 'SKU-00007'")
        return caught_up


def test_a_wrong_lake_is_found_out() -> None:
    with ExitStack() as stack:
        verdict = Sabotaged(stack, seconds=2).run(Silent())
    found = {table.pair.source[1]: table for table in verdict.tables if not table.identical}
    assert verdict.exit_code == 4
    assert set(found) == {"customers", "products"}
    assert (found["customers"].missing, found["products"].changed) == (1, 1)
