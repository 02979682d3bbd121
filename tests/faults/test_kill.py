"""The engine killed by SIGKILL, at random and at every step: afterwards the lake is the source, no row twice or lost.

Two tables would show a group applied twice: ``ledger``, which has no key and only grows, and ``bag``, whose equal rows
are counted.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from faults.traffic import SCHEMA, TABLES, Traffic
from fix_engine import EngineHarness, until, value
from psycopg.errors import UndefinedTable

from cdc.demo.engine_process import EngineProcess

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

HERE = Path(__file__).parent
Connection = psycopg.Connection[Any]

KILLS = int(os.environ.get("CDC_TEST_KILLS", "100"))
SOAK_KILLS = int(os.environ.get("CDC_TEST_SOAK_KILLS", "2000"))
LONGEST_LIFE_SECONDS = 0.9


class ForkedEngine(EngineProcess):
    """An engine forked from the nursery."""

    def __init__(self, nursery: subprocess.Popen[str], config: Path, *, http: str, log: Path) -> None:
        super().__init__(config, http=http, log=log)
        self._nursery = nursery
        self._arguments = f"{config}\t{log}"
        self._forked: int | None = None

    @property
    def pid(self) -> int:
        assert self._forked is not None
        return self._forked

    def start(self) -> None:
        self._forked = int(self._ask(f"start\t{self._arguments}"))

    def kill(self) -> None:
        if self._forked is not None:
            os.kill(self._forked, signal.SIGKILL)
            assert self._ask("wait") == str(signal.SIGKILL.value), f"it had ended before:\n{self.log.read_text()}"
            self._forked = None

    def check(self) -> None:
        if self._forked is not None:
            state = Path(f"/proc/{self._forked}/stat").read_text().rpartition(")")[2].split()[0]
            assert state != "Z", f"it has ended:\n{self.log.read_text()[-4000:]}"

    def _ask(self, command: str) -> str:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(command + "\n")
        self._nursery.stdin.flush()
        return self._nursery.stdout.readline().strip()


@pytest.fixture
def nursery() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(HERE / "nursery.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


def kill_at_random(engine: EngineHarness, nursery: subprocess.Popen[str], dsn: str, kills: int, seed: int) -> Traffic:
    """Kill the engine over and over under traffic; compare everything once after each restart."""
    chance = random.Random(seed)
    engine.process = ForkedEngine(nursery, engine.config, http=engine.http, log=engine.process.log)
    with Traffic(dsn, seed) as traffic:
        for kill in range(1, kills + 1):
            engine.start(ready=False)
            ends_at = time.monotonic() + chance.uniform(0.02, LONGEST_LIFE_SECONDS)
            until(lambda at=ends_at: time.monotonic() >= at)
            engine.kill()
            engine.start(ready=False)
            with traffic.quiet():
                try:
                    engine.wait_until_identical(TABLES)
                except BaseException as error:
                    error.add_note(f"after kill {kill} of {kills}, seed {seed}, {traffic.transactions} transactions")
                    raise
            # Killed a second time while it has work again, so that every comparison is between two kills.
            engine.kill()
    return traffic


def test_the_lake_is_the_source_after_each_of_many_kills(
    source: Connection, source_dsn: str, nursery: subprocess.Popen[str], engine: EngineHarness
) -> None:
    source.execute(SCHEMA)
    seed = int(os.environ.get("CDC_TEST_SEED", "0")) or random.randrange(10**9)
    traffic = kill_at_random(engine, nursery, source_dsn, KILLS // 2, seed)
    assert traffic.transactions > KILLS * 10
    engine.start()
    engine.wait_until_identical(TABLES)


@pytest.mark.soak
def test_the_lake_is_the_source_after_very_many_kills(
    source: Connection, source_dsn: str, nursery: subprocess.Popen[str], engine: EngineHarness
) -> None:
    source.execute(SCHEMA)
    seed = int(os.environ.get("CDC_TEST_SEED", "0")) or random.randrange(10**9)
    kill_at_random(engine, nursery, source_dsn, SOAK_KILLS // 2, seed)


STREAMING_STEPS = [
    ("Assembler.feed", "before", 3),
    ("Assembler.feed", "after", 3),
    ("Handover.offer", "before", 2),
    ("Handover.offer", "after", 2),
    ("Handover.take", "after", 2),
    ("Stages.route", "after", 2),
    ("Stages.apply", "before", 3),
    ("TableWriter.write", "before", 2),
    ("TableWriter.write", "after", 1),
    ("commit", "before", 3),
    ("commit", "after", 3),
    ("Lane.apply", "after", 3),
    ("Stages.apply", "after", 3),
    ("Source.acknowledge", "before", 2),
    ("Source.acknowledge", "after", 2),
    ("confirm", "before", 2),
    ("confirm", "after", 2),
    ("Handover.done", "before", 2),
    ("Handover.done", "after", 2),
]

FIRST_STEPS = [
    ("Sink.install", "after", 1),
    ("Source.prepare", "after", 1),
    ("Lane.begin", "after", 1),
    ("Source.publish", "before", 1),
    ("Source.publish", "after", 1),
    ("Source.establish", "before", 1),
    ("Source.establish", "after", 1),
    ("Lane.prepare", "before", 2),
    ("Lane.prepare", "after", 2),
    ("chunk", "before", 1),
    ("chunk", "before", 4),
    ("copy_table", "after", 1),
    ("copy_table", "after", 5),
    ("Lane.copy", "after", 3),
    ("TableBook.copied", "after", 4),
]


def launch_to_die(engine: EngineHarness, at: str, when: str, nth: int, *, armed: bool) -> None:
    spec = {"kill": {"at": at, "when": when, "nth": nth, "armed": armed}}
    engine.launch_with(HERE / "launcher.py", json.dumps(spec))
    engine.start(ready=False)


def test_a_kill_at_any_step_between_receive_and_acknowledge_loses_and_repeats_nothing(
    source: Connection, source_dsn: str, engine: EngineHarness
) -> None:
    source.execute(SCHEMA)
    with closing(Traffic(source_dsn, seed=1, large_rows=2_000)) as traffic:
        for at, when, nth in STREAMING_STEPS:
            launch_to_die(engine, at, when, nth, armed=False)
            engine.process.wait_until_ready(30)
            engine.wait_until_identical(TABLES)  # what the step before has left
            os.kill(engine.process.pid, signal.SIGUSR1)
            for kind in ("transfer", "bag", "many", "large", "key", "doc", "swap", "wipe", "transfer", "bag") * 2:
                traffic.step(kind)
            assert engine.end() == -signal.SIGKILL, f"{at} {when} wasn't reached"
    engine.launch_as_usual()
    engine.start()
    engine.wait_until_identical(TABLES)


@pytest.mark.parametrize(("at", "when", "nth"), FIRST_STEPS, ids=str)
def test_a_first_load_killed_in_the_middle_never_leaves_a_wrong_lake(
    source: Connection, lake: Connection, source_dsn: str, engine: EngineHarness, at: str, when: str, nth: int
) -> None:
    source.execute(SCHEMA)
    source.execute("INSERT INTO account SELECT -n, n, repeat('x', 100) FROM generate_series(1, 12000) n")
    launch_to_die(engine, at, when, nth, armed=True)
    with Traffic(source_dsn, seed=2, large_rows=500) as traffic:
        assert engine.end() == -signal.SIGKILL, f"{at} {when} wasn't reached"
        with traffic.quiet():
            assert_whole_or_absent(source, lake)
        engine.launch_as_usual()
        engine.start()
        with traffic.quiet():
            engine.wait_until_identical(TABLES)


def assert_whole_or_absent(source: Connection, lake: Connection) -> None:
    """Each copy is empty or missing, or has a whole table's rows: ``account`` never loses its first 200."""
    try:
        count = value(lake, "SELECT count(*) FROM lake.account")
        state = value(lake, "SELECT state FROM cdc.tables WHERE source_table = 'account'")
    except UndefinedTable:
        return
    assert count == 0 or count >= 10_000
    assert (state == "streaming") == (count > 0)
