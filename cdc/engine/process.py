"""The process: builds a runner per source, serves /metrics and /api, speaks to systemd, stops on a signal."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from importlib.metadata import version
from threading import Event, Thread, current_thread, main_thread
from typing import Any

from cdc import notify, plugins
from cdc.config import Config
from cdc.engine.journal import Journal
from cdc.engine.runner import SourceRunner
from cdc.metrics import build_registry
from cdc.state import open_store
from cdc.status import EngineStatus, SourceState
from cdc.web import WebServer

log = logging.getLogger(__name__)

DISTRIBUTION = "mutable-lake-cdc"

ALIVE_SECONDS = 90.0
"""A source whose runner hasn't ticked for so long hangs: longer than any statement or connection may take."""

TICK_SECONDS = 1.0
SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter from another that is ready. The apply thread gives it up at each call into
Arrow, numpy or libpq; at the default of 5 ms, it would mostly wait to get it back from the thread that receives."""

STOP_SECONDS = 4.5
"""When the process ends in any case: a thread that still waits for a database then is cut off with its connection."""


class Engine:
    """All sources of one configuration. Built and run by one thread."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stop = Event()
        self._started_at = time.time()
        registry, apply_metrics = build_registry(self.status)
        sink = plugins.sink(config.lake.type).open(config.lake)
        journal = Journal(open_store(config.state.get_secret_value() if config.state else None, sink.state_engine))
        self._runners = [
            SourceRunner(
                plugins.connector(source.type).open(name, source),
                source,
                sink,
                metrics=apply_metrics,
                journal=journal,
                stop=self._stop,
            )
            for name, source in config.sources.items()
        ]
        self._web = None
        if config.http is not None:
            self._web = WebServer(config.http, registry=registry, status=self.status, alive=self.is_alive)

    def run(self) -> int:
        """Run until SIGTERM, SIGINT or ``stop``.

        Returns:
            0 after a signal; 1 if no source can run until a person has acted.
        """
        self._obey_signals()
        sys.setswitchinterval(SWITCH_SECONDS)
        if self._web is not None:
            self._web.start()
        threads = [Thread(target=r.run, name=f"source-{n}", daemon=True) for n, r in enumerate(self._runners, 1)]
        for thread in threads:
            thread.start()
        notify.ready()
        code = self._watch()
        notify.stopping()
        self._stop.set()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._web is not None:
            self._web.stop()
        log.info("stopped")
        return code

    def stop(self) -> None:
        """End ``run`` soon."""
        self._stop.set()

    def status(self) -> EngineStatus:
        """Return a snapshot of everything; blocks on nothing."""
        return EngineStatus(
            environment=self._config.environment,
            version=version(DISTRIBUTION),
            pid=os.getpid(),
            started_at=self._started_at,
            sources=[runner.status() for runner in self._runners],
        )

    def is_alive(self) -> bool:
        """Return whether every source's runner still moves."""
        return all(time.monotonic() - runner.ticked_at < ALIVE_SECONDS for runner in self._runners)

    def _watch(self) -> int:
        """Wait for the end; keep systemd informed."""
        watchdog = notify.watchdog_seconds() is not None
        while not self._stop.wait(TICK_SECONDS):
            if watchdog and self.is_alive():
                notify.watchdog()
            states = [runner.state for runner in self._runners]
            notify.status(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
            if all(state is SourceState.FAILED for state in states):
                log.error("no source can run; see the errors above")
                return 1
        return 0

    def _obey_signals(self) -> None:
        if current_thread() is not main_thread():
            return

        def on_signal(number: int, _frame: Any) -> None:
            log.info("%s: stopping", signal.Signals(number).name)
            self._stop.set()

        signal.signal(signal.SIGTERM, on_signal)
        signal.signal(signal.SIGINT, on_signal)
