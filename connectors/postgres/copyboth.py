"""The two ways to read a COPY BOTH stream once a connection is made: through libpq, or straight from its socket.

Reading the socket ourselves costs half as much a message, which is most of what receiving costs. It takes a connection
that isn't encrypted; every other one goes through libpq.

Spec: PostgreSQL 18, "Message Formats", https://www.postgresql.org/docs/18/protocol-message-formats.html. A message is::

    offset  size  type   field
    0       1     Byte1  kind: 'd' CopyData, 'W' CopyBothResponse, 'E' ErrorResponse, 'N' notice, 'c' CopyDone, ...
    1       4     Int32  length - of what follows, these four bytes included
    5       n     Byten  body
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from struct import Struct
from typing import Protocol

import psycopg
from psycopg import pq

from cdc.errors import (
    CdcError,
    PrivilegeError,
    PublicationError,
    ServerSettingError,
    SlotInUseError,
    SlotLostError,
    SourceUnavailableError,
)

READ_BYTES = 256 << 10
"""How much is read at once: more than a Unix socket holds."""

ANSWER_SECONDS = 60.0
"""How long a command or a write may take before the connection counts as gone."""

_HEADER_BYTES = 5
_LENGTH = Struct("!I")
_COPY_DATA = ord("d")
_IGNORED = b"NSA"
"""Notice, parameter status, notification: the server may send them at any time."""
_GONE = "source: the server closed the replication connection"


class Frames(Protocol):
    """A stream of frames, read and written without ever waiting for the server to send."""

    def start(self, command: str) -> None:
        """Send START_REPLICATION and await its answer."""
        ...

    def read(self) -> list[bytes]:
        """Return the frames that have come, in order; none is no error.

        Raises:
            SourceUnavailableError: the server hung up.
            CdcError: it ended the stream with an error.
        """
        ...

    def write(self, frame: bytes) -> None:
        """Send a frame."""
        ...

    def close(self) -> None:
        """Free what isn't libpq's."""
        ...


def frames_of(pgconn: pq.abc.PGconn, *, plain: bool) -> Frames:
    """Return the cheaper way that a connection allows.

    Args:
        pgconn: connected, without an unread result.
        plain: whether GSS encryption is excluded, which libpq wouldn't tell.
    """
    return SocketFrames(pgconn.socket) if plain and not pgconn.ssl_in_use else LibpqFrames(pgconn)


class LibpqFrames:
    """Frames through libpq."""

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        self._pgconn = pgconn

    def start(self, command: str) -> None:
        """Send START_REPLICATION and await its answer."""
        result = self._pgconn.exec_(command.encode())
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise result_failure(result)

    def read(self) -> list[bytes]:
        """Return the frames that have come."""
        frames = self._drain()
        if frames:
            return frames
        try:
            self._pgconn.consume_input()
        except psycopg.Error as error:
            raise SourceUnavailableError(_GONE) from error
        return self._drain()

    def write(self, frame: bytes) -> None:
        """Send a frame."""
        try:
            self._pgconn.put_copy_data(frame)
            self._pgconn.flush()
        except psycopg.Error as error:
            raise SourceUnavailableError(_GONE) from error

    def close(self) -> None:
        """Do nothing: all is libpq's."""

    def _drain(self) -> list[bytes]:
        """Return the frames that libpq has buffered."""
        frames: list[bytes] = []
        add = frames.append
        get = self._pgconn.get_copy_data
        while True:
            size, data = get(1)
            if size <= 0:
                break
            add(data.obj if type(data.obj) is bytes else bytes(data))
        if size < 0 and not frames:
            raise self._ended()
        return frames

    def _ended(self) -> CdcError:
        result = self._pgconn.get_result()
        if result is None or result.status != pq.ExecStatus.FATAL_ERROR:
            return SourceUnavailableError("source: the server ended the stream")
        return result_failure(result)


class SocketFrames:
    """Frames straight from the socket of a plain connection.

    Args:
        fd: the connection's socket; libpq may only close it from now on, since it would miss what is read here.
    """

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=os.dup(fd))
        self._socket.setblocking(False)
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)
        self._parts: list[bytes] = []
        self._held_bytes = 0
        self._wanted_bytes = _HEADER_BYTES

    def start(self, command: str) -> None:
        """Send START_REPLICATION and await its answer."""
        text = command.encode() + b"\0"
        self._send(b"Q" + _LENGTH.pack(len(text) + 4) + text)
        while True:
            if not is_ready(self._socket.fileno(), select.POLLIN, ANSWER_SECONDS):
                raise SourceUnavailableError("source: the server doesn't answer")
            if not self._receive():
                raise SourceUnavailableError(_GONE)
            data = self._whole()
            at = 0
            for kind, start, stop in _messages(data):
                at = stop
                if kind == b"W":
                    self._keep(data, at)
                    return
                self._act_on(kind, data[start:stop])
            self._keep(data, at)

    def read(self) -> list[bytes]:
        """Return the frames that have come."""
        is_open = self._receive()
        frames = self._frames() if self._held_bytes >= self._wanted_bytes else []
        if not frames and not is_open:
            raise SourceUnavailableError(_GONE)
        return frames

    def write(self, frame: bytes) -> None:
        """Send a frame."""
        self._send(b"d" + _LENGTH.pack(len(frame) + 4) + frame)

    def close(self) -> None:
        """Close our half of the socket's descriptors."""
        self._socket.close()

    def _frames(self) -> list[bytes]:
        """Return the whole frames that are held, up to anything else among them, which is acted on when it is first."""
        data = self._whole()
        frames: list[bytes] = []
        add, length_at, at, last = frames.append, _LENGTH.unpack_from, 0, len(data) - _HEADER_BYTES
        # Written out, without a call for each message: this loop is most of what receiving costs.
        while at <= last:
            stop = at + 1 + length_at(data, at + 1)[0]
            if stop > len(data):
                break
            if data[at] == _COPY_DATA:
                add(data[at + _HEADER_BYTES : stop])
            elif data[at] not in _IGNORED and frames:
                break
            else:
                self._act_on(data[at : at + 1], data[at + _HEADER_BYTES : stop])
            at = stop
        self._keep(data, at)
        return frames

    def _receive(self) -> bool:
        """Read what is there; return whether the server hasn't hung up."""
        try:
            size = self._socket.recv_into(self._buffer)
        except BlockingIOError:
            return True
        except OSError as error:
            raise SourceUnavailableError(_GONE) from error
        if size:
            self._parts.append(bytes(self._view[:size]))
            self._held_bytes += size
        return size > 0

    def _whole(self) -> bytes:
        """Return all that is held, in one piece."""
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = [data]
        return data

    def _keep(self, data: bytes, at: int) -> None:
        """Hold what is behind ``at``; a large message isn't looked at again before all of it is there."""
        rest = data[at:]
        self._parts, self._held_bytes = [rest] if rest else [], len(rest)
        known = len(rest) >= _HEADER_BYTES
        self._wanted_bytes = 1 + _LENGTH.unpack_from(rest, 1)[0] if known else _HEADER_BYTES

    def _act_on(self, kind: bytes, body: bytes) -> None:
        """Act on a message that is no frame."""
        if kind == b"E":
            fields = dict(_fields(body))
            raise failure(fields.get("C", ""), fields.get("M", ""))
        if kind in b"cCZ":
            raise SourceUnavailableError("source: the server ended the stream")
        if kind not in _IGNORED:
            raise SourceUnavailableError(f"source: expected a message of a stream, got kind 0x{kind.hex()}")

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                if not is_ready(self._socket.fileno(), select.POLLOUT, ANSWER_SECONDS):
                    raise SourceUnavailableError("source: the server doesn't read what we send") from None
            except OSError as error:
                raise SourceUnavailableError(_GONE) from error


def is_ready(fd: int, event: int, timeout_seconds: float) -> bool:
    """Wait for an event of a descriptor, any number of it; return whether it came in time."""
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(timeout_seconds * 1000))


def _messages(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of each whole message's body."""
    at = 0
    while at + _HEADER_BYTES <= len(data):
        stop = at + 1 + _LENGTH.unpack_from(data, at + 1)[0]
        if stop > len(data):
            return
        yield data[at : at + 1], at + _HEADER_BYTES, stop
        at = stop


def _fields(body: bytes) -> Iterator[tuple[str, str]]:
    """Yield the fields of an ErrorResponse: a letter, and text that ends in a zero byte."""
    for field in body.split(b"\0"):
        if field:
            yield chr(field[0]), field[1:].decode(errors="replace")


def result_failure(result: pq.abc.PGresult) -> CdcError:
    """Return the error for a command or a stream that ended in a result of libpq."""
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    text = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode() or result.get_error_message()
    return failure(state, text)


def failure(state: str, text: str) -> CdcError:
    """Return the error for a command or a stream that the server ended with one.

    Args:
        state: SQLSTATE.
        text: the primary message; it names objects and settings, never values.
    """
    message = f"source: {text.strip()}"
    recopy = "run cdc tables resync <source> --all: it copies the tables again, keeping the lake's columns"
    match state:
        case "55006":
            return SlotInUseError(message, hint="stop the other reader, or give this source another slot name")
        case "55000" if "wal_level" in text or "logical decoding" in text:
            return ServerSettingError(message, hint="ALTER SYSTEM SET wal_level = logical, then restart the server")
        case "55000" | "58P01" | "XX000" if "slot" in text or "WAL segment" in text:
            return SlotLostError(message, hint=recopy)
        case "42704" if text.startswith("replication slot"):
            return SlotLostError(message, hint=recopy)
        case "42704" if "publication" in text:
            return PublicationError(message, hint=recopy)
        case "42501":
            return PrivilegeError(message, hint="run cdc check: it names each missing privilege and its GRANT")
        case "42601" | "22023" | "0A000":
            return ServerSettingError(message, hint="run cdc check against this source")
        case _:
            return SourceUnavailableError(message)
