"""Sees to it that a process we started doesn't outlive us, even when we are killed.

A small shell in a session of its own waits for the end of a pipe that only we hold open. The kernel closes the pipe
however we end, SIGKILL included, and the shell then signals the process. That holds for any thread that starts one, on
any POSIX system; the parent-death signal of Linux would fire as soon as the starting *thread* ends.
"""

from __future__ import annotations

import subprocess

_WATCH = 'read -r word && exit 0; kill -s "$1" "$0" 2>/dev/null'


class Guard:
    """Watches one process.

    Args:
        pid: whom to signal when we are gone.
        signal_name: with what, as ``kill -s`` takes it.
    """

    def __init__(self, pid: int, signal_name: str) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, str(pid), signal_name],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """End the watch without a signal: the process has ended."""
        try:
            self._shell.communicate(b"done\n")
        except BrokenPipeError:
            self._shell.wait()
