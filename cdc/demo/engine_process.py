"""The engine as a user runs it: ``cdc run`` in a process of its own, watched over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from cdc.demo.guard import Guard
from cdc.errors import OperatorError

_HTTP_SECONDS = 2.0
_POLL_SECONDS = 0.05
_STOP_SECONDS = 10.0


class EngineProcess:
    """One ``cdc run``, which may be killed and started again.

    Args:
        config: the cdc.yaml to run.
        http: the address that it serves, as host:port.
        log: where its output goes; it grows over restarts.
    """

    def __init__(self, config: Path, *, http: str, log: Path) -> None:
        self.log = log
        self._command = [sys.executable, "-m", "cdc", "--config", str(config), "run"]
        self._base = f"http://{http}"
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None

    @property
    def pid(self) -> int:
        """Its process id; fails when it isn't running."""
        if self._process is None:
            raise OperatorError("engine: expected it to run, got none", hint="start it first")
        return self._process.pid

    def start(self) -> None:
        """Start it; ``wait_until_ready`` tells when it works."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._guard = Guard(self._process.pid, "KILL")

    def stop(self) -> None:
        """Stop it as systemd would; if it doesn't end in time, kill it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._reap(self._process)

    def kill(self) -> None:
        """Send SIGKILL: no handler runs, nothing is flushed, no connection is closed."""
        if self._process is not None:
            self._process.kill()
            self._reap(self._process)

    def check(self) -> None:
        """Raise if it has ended by itself.

        Raises:
            OperatorError: with the end of its log.
        """
        if self._process is not None and self._process.poll() is not None:
            code = self._process.returncode
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
            raise OperatorError(
                f"engine: expected it to run, got exit code {code} and this in its log:\n{tail}",
                hint=f"the whole log is {self.log}",
            )

    def wait_until_ready(self, timeout_seconds: float) -> None:
        """Wait until /readyz says yes.

        Raises:
            OperatorError: it ended, or wasn't ready in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while self._get("/readyz") is None:
            self.check()
            if time.monotonic() > deadline:
                raise OperatorError(
                    f"engine: expected it to be ready after {timeout_seconds:.0f} s, got no yes from /readyz",
                    hint=f"its log is {self.log}",
                )
            time.sleep(_POLL_SECONDS)

    def status(self) -> dict[str, Any] | None:
        """Return what /api/status says, or None while nobody answers."""
        body = self._get("/api/status")
        return json.loads(body) if body else None

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        if self._guard is not None:
            self._guard.dismiss()
        self._process = self._guard = None

    def _get(self, path: str) -> bytes | None:
        try:
            with urllib.request.urlopen(self._base + path, timeout=_HTTP_SECONDS) as answer:  # noqa: S310 - our own address
                body: bytes = answer.read()
                return body
        except (urllib.error.URLError, OSError):
            return None
