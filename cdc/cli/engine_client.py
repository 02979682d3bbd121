"""Asks a running engine how it is, over its HTTP address; and without one, what is durable in the lake."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException
from typing import Any

import orjson

from cdc.config import Config, split_address
from cdc.errors import OperatorError

_TIMEOUT_SECONDS = 3.0
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - the addresses that mean all of ours


def running_status(config: Config) -> dict[str, Any] | None:
    """Return the JSON form of the running engine's ``EngineStatus``; None if nobody listens or ``http`` is null.

    Raises:
        OperatorError: something else than an engine answers, or an engine that doesn't answer.
    """
    if config.http is None:
        return None
    host, port = split_address(config.http)
    connection = HTTPConnection(_LOOPBACK.get(host, host), port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/api/status")
        response = connection.getresponse()
        body = response.read()
        status = orjson.loads(body) if response.status == 200 else None
    except TimeoutError:
        raise _stranger(config.http, f"no answer in {_TIMEOUT_SECONDS:.0f} s") from None
    except OSError:
        return None
    except (HTTPException, orjson.JSONDecodeError):
        raise _stranger(config.http, "something that isn't its status") from None
    finally:
        connection.close()
    if not isinstance(status, dict) or "sources" not in status or "pid" not in status:
        raise _stranger(config.http, f"HTTP status {response.status}")
    return {"running": True, **status}


def durable_status(config: Config) -> dict[str, Any]:
    """Return what the lake has stored, in the fields that ``running_status`` has too.

    Raises:
        CdcError: the lake can't be read.
    """
    from cdc.cli.databases import open_lake

    stored = open_lake(config).progress()
    sources = []
    for name, source in config.sources.items():
        progress = stored.get(name)
        tables = [] if progress is None else progress.tables.items()
        sources.append(
            {
                "name": name,
                "type": source.type,
                "state": "stopped",
                "position": progress.position if progress else None,
                "committed_at": progress.committed_at if progress else None,
                "rpo_seconds": source.rpo,
                "rto_seconds": source.rto,
                "tables": [
                    {"table": str(t), "target": str(p.target), "state": p.state.value, "reason": p.reason}
                    for t, p in tables
                ],
            }
        )
    return {"running": False, "environment": config.environment, "sources": sources}


def _stranger(address: str, got: str) -> OperatorError:
    return OperatorError(
        f"http: expected the engine's status at {address}, got {got}",
        hint="see what listens there, or give the engine another address with the key http",
    )
