"""The engine's HTTP side: /metrics, /healthz, /readyz and /api/status, read-only, a thread per request.

Everything served comes from memory; no request waits for a database.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import orjson
from prometheus_client import CollectorRegistry, make_wsgi_app

from cdc.config import split_address
from cdc.errors import ConfigError
from cdc.status import EngineStatus, SourceState

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_PATHS = ("/metrics", "/healthz", "/readyz", "/api/status")


class WebServer:
    """Serves one engine.

    Args:
        address: ``host:port``; port 0 takes any free one.
        status: returns what the engine says of itself; must not block.
        alive: returns whether the engine's main loop still turns.
        registry: what /metrics shows.
    """

    def __init__(
        self,
        address: str,
        *,
        status: Callable[[], EngineStatus],
        alive: Callable[[], bool],
        registry: CollectorRegistry,
    ) -> None:
        self._address = address
        self._app = _application(status, alive, registry)
        self._server: _Server | None = None
        self._thread: Thread | None = None

    @property
    def port(self) -> int:
        """The port that is listened on; 0 before ``start``."""
        return self._server.server_port if self._server else 0

    def start(self) -> None:
        """Bind and serve from a thread of its own.

        Raises:
            ConfigError: the address can't be bound.
        """
        host, port = split_address(self._address)
        try:
            self._server = _Server((host, port), _Handler, ipv6=":" in host)
        except OSError as error:
            raise ConfigError(
                f"http: expected an address to listen on, got {self._address}: {error.strerror}",
                hint="stop what listens there, or choose another address with the key http (null: no HTTP at all)",
                path="http",
            ) from error
        self._server.set_app(self._app)
        self._thread = Thread(target=self._server.serve_forever, args=(0.1,), name="cdc-http", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; does nothing if it never started."""
        if self._server and self._thread:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = self._thread = None


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False  # a slow client must not delay the engine's end

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler], *, ipv6: bool) -> None:
        self.address_family = socket.AF_INET6 if ipv6 else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind without the reverse look-up of our own name that ``HTTPServer`` makes: it may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about clients that hang up."""


class _Handler(WSGIRequestHandler):
    timeout = 10  # seconds that a silent client may hold a thread

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep no access log."""


def _application(
    status: Callable[[], EngineStatus], alive: Callable[[], bool], registry: CollectorRegistry
) -> WSGIApplication:
    metrics = make_wsgi_app(registry)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        code, answer = HTTPStatus.OK, dict[str, Any]()
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            code, answer = HTTPStatus.METHOD_NOT_ALLOWED, {"error": "expected GET"}
        elif path == "/metrics":
            page: Iterable[bytes] = metrics(environ, start_response)
            return page
        elif path == "/healthz":
            healthy = alive()
            code, answer = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE, {"alive": healthy}
        elif path == "/readyz":
            code, answer = _readiness(status())
        elif path == "/api/status":
            answer = status().to_json()
        else:
            code, answer = HTTPStatus.NOT_FOUND, {"error": f"expected one of {', '.join(_PATHS)}"}
        body = orjson.dumps(answer)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response(f"{code.value} {code.phrase}", [*headers, ("Cache-Control", "no-store")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return application


def _readiness(status: EngineStatus) -> tuple[HTTPStatus, dict[str, Any]]:
    reasons = {
        source.name: f"{source.state.value}: {source.error}" if source.error else source.state.value
        for source in status.sources
        if source.state is not SourceState.STREAMING
    }
    code = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    return code, {"ready": not reasons, "reasons": reasons}
