from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc import notify


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Return the socket that systemd would listen on."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@cdc-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(5)
        listener.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        yield listener


def test_every_message_arrives_as_one_datagram(manager: socket.socket) -> None:
    assert notify.ready()
    assert notify.watchdog()
    assert notify.status("2 sources,\nall streaming")
    assert notify.stopping()
    received = [manager.recv(200) for _ in range(4)]
    assert received == [b"READY=1", b"WATCHDOG=1", b"STATUS=2 sources, all streaming", b"STOPPING=1"]


@pytest.mark.parametrize("address", [None, "", "relative", "/nowhere/notify", "@nobody-listens", "vsock:2:1234"])
def test_without_a_manager_nothing_happens(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify.ready()


@pytest.mark.parametrize(
    ("interval_us", "pid", "seconds"),
    [
        ("30000000", None, 30.0),
        ("500000", "self", 0.5),
        ("30000000", "1", None),
        ("0", None, None),
        ("soon", None, None),
        (None, None, None),
    ],
)
def test_the_watchdogs_interval_is_read_if_it_is_meant_for_us(
    interval_us: str | None, pid: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"WATCHDOG_USEC": interval_us, "WATCHDOG_PID": str(os.getpid()) if pid == "self" else pid}
    for name, value in given.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert notify.watchdog_seconds() == seconds
