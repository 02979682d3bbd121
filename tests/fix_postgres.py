"""PostgreSQL servers for tests: started when first asked for, shared by the session, a database of its own per test.

Which version a source has: the newest; for tests marked ``all_versions`` each of ``VERSIONS``; and what the environment
variable ``CDC_TEST_POSTGRES`` says for all others. A version that isn't installed skips, and fails where ``CI`` is set.
Tests that stop, kill or reconfigure a server take one of their own from ``make_server``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from cdc.demo.binaries import EMBEDDED, Programs, find_binaries
from cdc.demo.server import PostgresServer
from cdc.errors import OperatorError

VERSIONS = {"18": EMBEDDED, "15": "15"}
NEWEST = "18"
FAST = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "2GB", "max_prepared_transactions": "10"}
DEADLINE_SECONDS = 20.0

MakeServer = Callable[..., PostgresServer]


def pytest_report_header() -> list[str]:
    """Name the servers that this run has."""
    found = []
    for version, which in VERSIONS.items():
        try:
            found.append(Programs(find_binaries(which)).version())
        except OperatorError:
            found.append(f"{version} not installed")
    return [f"PostgreSQL: {', '.join(found)}"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests marked ``all_versions`` once per version."""
    if "postgres_version" in metafunc.fixturenames and metafunc.definition.get_closest_marker("all_versions"):
        metafunc.parametrize("postgres_version", list(VERSIONS), indirect=True)


class Servers:
    """The session's servers, by role and version."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], PostgresServer] = {}

    def get(self, role: str, version: str = NEWEST) -> PostgresServer:
        """Return the server, started when it isn't yet."""
        if (role, version) not in self._running:
            server = PostgresServer(_directory(), binaries=_binaries(version), settings=FAST, name=f"{role}{version}")
            server.start()
            self._running[role, version] = server
        return self._running[role, version]

    def stop(self) -> None:
        """Stop them all; their data is of no use any more."""
        for server in self._running.values():
            _discard(server)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """The session's servers; for fixtures of wider scope than a test."""
    pool = Servers()
    yield pool
    pool.stop()


@pytest.fixture
def postgres_version(request: pytest.FixtureRequest) -> str:
    """The major version of the source."""
    version: str = getattr(request, "param", None) or os.environ.get("CDC_TEST_POSTGRES") or NEWEST
    return version


@pytest.fixture
def source_server(servers: Servers, postgres_version: str) -> PostgresServer:
    """A source with wal_level=logical and prepared transactions. Shared: don't stop or reconfigure it."""
    return servers.get("source", postgres_version)


@pytest.fixture
def lake_server(servers: Servers) -> PostgresServer:
    """A lake. Shared: don't stop or reconfigure it."""
    return servers.get("lake")


@pytest.fixture
def source_dsn(source_server: PostgresServer) -> Iterator[str]:
    """An empty database at the source; what the test leaves there, slots too, goes with it."""
    yield from fresh_database(source_server)


@pytest.fixture
def lake_dsn(lake_server: PostgresServer) -> Iterator[str]:
    """An empty database in the lake."""
    yield from fresh_database(lake_server)


@pytest.fixture
def make_server() -> Iterator[MakeServer]:
    """Start servers of the test's own: ``make_server(version="18", settings={...}, name=...)``."""
    made: list[PostgresServer] = []

    def make(
        *, version: str = NEWEST, settings: Mapping[str, str] | None = None, name: str = "own", start: bool = True
    ) -> PostgresServer:
        both = {**FAST, **(settings or {})}
        made.append(PostgresServer(_directory(), binaries=_binaries(version), settings=both, name=name))
        if start:
            made[-1].start()
        return made[-1]

    yield make
    for server in made:
        _discard(server)


def fresh_database(server: PostgresServer) -> Iterator[str]:
    """Yield a new database's DSN and drop the database afterwards, with its slots and prepared transactions."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield server.create_database(name)
    if server.running:
        drop_database(server, name)


def drop_database(server: PostgresServer, name: str) -> None:
    """Drop a database and all that would hold it back."""
    with psycopg.connect(server.dsn(name), autocommit=True) as connection:
        prepared = connection.execute("SELECT gid FROM pg_prepared_xacts WHERE database = %s", [name]).fetchall()
        for (gid,) in prepared:
            connection.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        _drop_slots(connection, name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _drop_slots(connection: psycopg.Connection, database: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    mine = "FROM pg_replication_slots WHERE database = %s"
    while connection.execute(f"SELECT pg_terminate_backend(active_pid) {mine} AND active", [database]).fetchall():
        assert time.monotonic() < deadline, "a walsender outlives its termination"
        time.sleep(0.01)
    connection.execute(f"SELECT pg_drop_replication_slot(slot_name) {mine}", [database])


def _binaries(version: str) -> Path:
    try:
        return find_binaries(VERSIONS[version])
    except OperatorError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{error}: {error.hint}")


def _directory() -> Path:
    return Path(tempfile.mkdtemp(prefix="cdc-test-", dir="/tmp"))


def _discard(server: PostgresServer) -> None:
    server.stop("immediate")
    shutil.rmtree(server.directory, ignore_errors=True)
