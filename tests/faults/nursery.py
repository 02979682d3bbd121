"""Forks engines from one process that has everything imported, so that a hundred starts cost what ten do.

Commands on stdin, one per line: ``start CDC_YAML LOG`` answers with the engine's process id; ``wait`` answers with what
``waitpid`` says once it has ended. At the end of stdin the engine is killed.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys

from cdc.cli.main import main as cli

PRELOADED = ("cdc.config_loader", "cdc.engine", "connectors.postgres.source", "sinks.postgres.sink")


def start(config: str, log: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    with open(log, "ab") as out, open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    sys.argv = ["cdc", "--config", config, "run"]
    try:
        cli()
    except SystemExit as end:
        sys.stderr.flush()
        os._exit(int(end.code or 0))
    os._exit(70)


def main() -> None:
    for module in PRELOADED:
        importlib.import_module(module)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pid = 0
    for line in sys.stdin:
        command, *arguments = line.rstrip("\n").split("\t")
        if command == "start":
            pid = start(*arguments)
            print(pid, flush=True)
        else:
            print(os.waitpid(pid, 0)[1], flush=True)
            pid = 0
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
