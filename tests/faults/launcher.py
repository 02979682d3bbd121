"""Runs ``cdc run`` with things changed inside: kills itself at a named step, or sets constants.

    python launcher.py CDC_YAML '{"kill": {"at": "Handover.offer", "when": "before", "nth": 1, "armed": false},
                                  "set": {"connectors.postgres.source:WRITERS_WAIT_SECONDS": 0.5}}'

It kills itself with SIGKILL at the nth call of the step, counted from when it was armed: from the start, or by SIGUSR1.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

STEPS = {
    # receive and hand over
    "Assembler.feed": "connectors.postgres.assembler:Assembler.feed",
    "Handover.offer": "cdc.engine.handover:Handover.offer",
    "Handover.take": "cdc.engine.handover:Handover.take",
    # apply
    "Stages.route": "cdc.topology:Stages.route",
    "Stages.apply": "cdc.topology:Stages.apply",
    "Lane.apply": "sinks.postgres.lane:PostgresLane.apply",
    "TableWriter.write": "sinks.postgres.writer:TableWriter.write",
    "commit": "psycopg:Connection.commit",
    # acknowledge
    "Source.acknowledge": "connectors.postgres.source:PostgresSource.acknowledge",
    "confirm": "connectors.postgres.replication:ReplicationConnection.confirm",
    "Handover.done": "cdc.engine.handover:Handover.done",
    # start and copy
    "Sink.install": "sinks.postgres.sink:PostgresSink.install",
    "Source.prepare": "connectors.postgres.source:PostgresSource.prepare",
    "Lane.begin": "sinks.postgres.lane:PostgresLane.begin",
    "Source.publish": "connectors.postgres.source:PostgresSource.publish",
    "Source.establish": "connectors.postgres.source:PostgresSource.establish",
    "Lane.prepare": "sinks.postgres.lane:PostgresLane.prepare",
    "copy_table": "sinks.postgres.lane:copy_table",
    "Lane.copy": "sinks.postgres.lane:PostgresLane.copy",
    "TableBook.copied": "cdc.engine.tables:TableBook.copied",
}

APPLY_ONLY = {"commit", "TableWriter.write"}
"""Steps that count only in the apply thread."""


class Trigger:
    """Counts calls, and kills this process at the nth."""

    def __init__(self, nth: int, *, armed: bool, apply_only: bool) -> None:
        self._left = nth
        self._armed = armed
        self._apply_only = apply_only
        signal.signal(signal.SIGUSR1, self._arm)

    def _arm(self, *_: Any) -> None:
        self._armed = True

    def pull(self) -> None:
        if not self._armed or (self._apply_only and not threading.current_thread().name.endswith("-apply")):
            return
        self._left -= 1
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def resolve(place: str) -> tuple[Any, str]:
    """Return the object that has the attribute which ``module:Class.method`` or ``module:NAME`` names, and its name."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    return functools.reduce(getattr, owners, importlib.import_module(module)), name


def wrap(place: str, when: str, trigger: Trigger) -> None:
    owner, name = resolve(place)
    original: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*arguments: Any, **keys: Any) -> Any:
        if when == "before":
            trigger.pull()
        found = original(*arguments, **keys)
        if when == "after":
            trigger.pull()
        return found

    setattr(owner, name, wrapped)


def broken(*_: Any, **__: Any) -> None:
    raise ZeroDivisionError("a bug, planted")


def wrap_chunks(trigger: Trigger) -> None:
    """Pull the trigger before each piece of a copy."""
    owner, name = resolve("connectors.postgres.source:_chunks")
    original = getattr(owner, name)

    def chunks(rows: Any) -> Iterator[bytes]:
        for chunk in original(rows):
            trigger.pull()
            yield chunk

    setattr(owner, name, chunks)


def main() -> None:
    config, spec = sys.argv[1], json.loads(sys.argv[2])
    for place, constant in spec.get("set", {}).items():
        owner, name = resolve(place)
        assert hasattr(owner, name), place
        setattr(owner, name, constant)
    if place := spec.get("break"):
        owner, name = resolve(STEPS[place])
        setattr(owner, name, broken)
    if kill := spec.get("kill"):
        trigger = Trigger(kill.get("nth", 1), armed=kill.get("armed", False), apply_only=kill["at"] in APPLY_ONLY)
        if kill["at"] == "chunk":
            wrap_chunks(trigger)
        else:
            wrap(STEPS[kill["at"]], kill["when"], trigger)
    from cdc.cli.main import main as cli

    sys.argv = ["cdc", "--config", config, "run"]
    cli()


if __name__ == "__main__":
    main()
