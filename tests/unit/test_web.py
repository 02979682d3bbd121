from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from threading import Event, Thread

import pytest

from cdc.contracts import TableState
from cdc.errors import ConfigError
from cdc.metrics import build_registry
from cdc.status import EngineStatus, SourceState, SourceStatus, TableStatus
from cdc.web import WebServer

ORDERS = TableStatus(table="public.orders", target="shop.orders", state=TableState.STREAMING)
SHOP = SourceStatus(name="shop", type="postgres", state=SourceState.STREAMING, tables=(ORDERS,))
STATUS = EngineStatus(environment="test", version="1", pid=42, started_at=0.5, sources=(SHOP,))


@contextmanager
def serving(status: EngineStatus = STATUS, *, alive: bool = True, address: str = "127.0.0.1:0") -> Iterator[WebServer]:
    registry, _ = build_registry(lambda: status)
    server = WebServer(address, status=lambda: status, alive=lambda: alive, registry=registry)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def get(server: WebServer, path: str, method: str = "GET", host: str = "127.0.0.1") -> tuple[int, str, bytes]:
    connection = HTTPConnection(host, server.port, timeout=5)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read()
    finally:
        connection.close()


def test_metrics_are_served_in_prometheus_text() -> None:
    with serving() as server:
        code, kind, body = get(server, "/metrics")
    assert code == 200
    assert kind.startswith("text/plain")
    assert b'cdc_source_up{source="shop"} 1.0' in body


def test_the_status_is_served_with_its_documented_fields() -> None:
    with serving() as server:
        code, kind, body = get(server, "/api/status")
    assert (code, kind) == (200, "application/json")
    assert json.loads(body) == json.loads(json.dumps(STATUS.to_json()))
    assert json.loads(body)["sources"][0]["tables"][0]["state"] == "streaming"


@pytest.mark.parametrize(("alive", "code"), [(True, 200), (False, 503)])
def test_health_follows_the_main_loop(alive: bool, code: int) -> None:
    with serving(alive=alive) as server:
        answer = get(server, "/healthz")
    assert answer == (code, "application/json", json.dumps({"alive": alive}, separators=(",", ":")).encode())


def test_ready_means_that_all_sources_stream() -> None:
    with serving() as server:
        code, _, body = get(server, "/readyz")
    assert (code, json.loads(body)) == (200, {"ready": True, "reasons": {}})


def test_not_ready_says_why() -> None:
    failed = replace(SHOP, name="crm", state=SourceState.FAILED, error="slot lost")
    starting = replace(SHOP, name="erp", state=SourceState.STARTING)
    with serving(replace(STATUS, sources=(SHOP, failed, starting))) as server:
        code, _, body = get(server, "/readyz")
    assert code == 503
    assert json.loads(body) == {"ready": False, "reasons": {"crm": "failed: slot lost", "erp": "starting"}}


def test_an_unknown_path_lists_the_known_ones() -> None:
    with serving() as server:
        code, _, body = get(server, "/favicon.ico")
    assert code == 404
    assert "/metrics, /healthz, /readyz, /api/status" in json.loads(body)["error"]


def test_nothing_can_be_changed_over_http() -> None:
    with serving() as server:
        assert get(server, "/api/status", "POST")[0] == 405
        assert get(server, "/healthz", "HEAD") == (200, "application/json", b"")


def test_a_taken_address_is_a_configuration_error_with_its_path() -> None:
    with (
        serving() as server,
        pytest.raises(ConfigError, match="Address already in use") as caught,
        serving(address=f"127.0.0.1:{server.port}"),
    ):
        pass
    assert caught.value.path == "http"


def test_a_host_that_does_not_exist_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="http: expected an address to listen on"), serving(address="host.invalid:0"):
        pass


def test_a_client_that_says_nothing_neither_blocks_others_nor_the_end() -> None:
    with serving() as server:
        silent = socket.create_connection(("127.0.0.1", server.port))
        assert get(server, "/healthz")[0] == 200
    silent.close()


def test_requests_are_served_while_another_one_waits() -> None:
    asked, go_on = Event(), Event()

    def slow() -> bool:
        asked.set()
        return go_on.wait(10)

    registry, _ = build_registry(lambda: STATUS)
    server = WebServer("127.0.0.1:0", status=lambda: STATUS, alive=slow, registry=registry)
    server.start()
    waiting = Thread(target=get, args=(server, "/healthz"))
    waiting.start()
    try:
        assert asked.wait(10)
        assert get(server, "/readyz")[0] == 200
    finally:
        go_on.set()
        waiting.join()
        server.stop()


def test_no_access_log_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as server:
        get(server, "/healthz")
        get(server, "/nowhere")
    assert capfd.readouterr() == ("", "")


def test_the_port_is_free_again_after_the_end() -> None:
    with serving() as server:
        port = server.port
    with serving(address=f"127.0.0.1:{port}") as server:
        assert server.port == port


def test_stopping_what_never_started_does_nothing() -> None:
    registry, _ = build_registry(lambda: STATUS)
    server = WebServer("127.0.0.1:0", status=lambda: STATUS, alive=lambda: True, registry=registry)
    server.stop()
    assert server.port == 0


def test_ipv6_addresses_are_served() -> None:
    try:
        socket.socket(socket.AF_INET6).close()
        with serving(address="[::1]:0") as server:
            assert get(server, "/healthz", host="::1")[0] == 200
    except (OSError, ConfigError):
        pytest.skip("this machine has no IPv6")
