"""Frames straight from a socket: the same in whatever pieces they arrive, and the end of a stream says why."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.errors import PublicationError, SourceUnavailableError
from connectors.postgres.copyboth import READ_BYTES, SocketFrames

NOTICE = b"N" + (9).to_bytes(4) + b"SX\0\0\0"
STARTED = b"W" + (7).to_bytes(4) + b"\0\0\0"


def framed(payload: bytes) -> bytes:
    return b"d" + (len(payload) + 4).to_bytes(4) + payload


def refused(state: str, text: str) -> bytes:
    body = b"SERROR\0" + b"C" + state.encode() + b"\0M" + text.encode() + b"\0\0"
    return b"E" + (len(body) + 4).to_bytes(4) + body


class Wire:
    """A server's end of a socket, and the frames at ours."""

    def __init__(self) -> None:
        self.server, self._client = socket.socketpair()
        self.frames = SocketFrames(self._client.fileno())

    def read_all(self, count: int) -> list[bytes]:
        found: list[bytes] = []
        while len(found) < count:
            assert select.select([self._client], [], [], 5)[0], f"only {len(found)} of {count} frames came"
            found += self.frames.read()
        return found

    def close(self) -> None:
        self.frames.close()
        self._client.close()
        self.server.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


@settings(max_examples=60, deadline=None)
@given(
    payloads=st.lists(st.binary(max_size=300), min_size=1, max_size=40),
    notices=st.sets(st.integers(0, 40)),
    cuts=st.lists(st.integers(1, 400), min_size=1, max_size=30),
)
def test_frames_are_the_same_in_whatever_pieces_they_arrive(
    payloads: list[bytes], notices: set[int], cuts: list[int]
) -> None:
    made = Wire()
    try:
        stream = b"".join((NOTICE if n in notices else b"") + framed(p) for n, p in enumerate(payloads))
        found: list[bytes] = []
        at = 0
        for cut in cuts * (len(stream) // sum(cuts) + 1):
            made.server.sendall(stream[at : at + cut])
            found += made.frames.read()
            at += cut
        found += made.read_all(len(payloads) - len(found))
        assert found == payloads
    finally:
        made.close()


def test_a_frame_larger_than_what_is_read_at_once_arrives_whole(wire: Wire) -> None:
    payload = bytes(range(256)) * (READ_BYTES // 64)
    data = framed(payload) + framed(b"after")
    found: list[bytes] = []
    for at in range(0, len(data), 50_000):
        wire.server.sendall(data[at : at + 50_000])
        found += wire.frames.read()
    assert found + wire.read_all(2 - len(found)) == [payload, b"after"]


def test_the_servers_error_comes_after_the_frames_before_it(wire: Wire) -> None:
    wire.server.sendall(framed(b"one") + refused("42704", 'publication "x" does not exist'))
    wire.server.close()
    assert wire.read_all(1) == [b"one"]
    with pytest.raises(PublicationError, match='publication "x" does not exist'):
        wire.frames.read()


def test_an_ended_stream_is_unavailable(wire: Wire) -> None:
    wire.server.sendall(framed(b"one") + b"c" + (4).to_bytes(4))
    assert wire.read_all(1) == [b"one"]
    with pytest.raises(SourceUnavailableError, match="ended the stream"):
        wire.frames.read()


def test_a_closed_connection_is_unavailable(wire: Wire) -> None:
    wire.server.sendall(framed(b"one") + framed(b"half of another")[:9])
    wire.server.close()
    assert wire.read_all(1) == [b"one"]
    with pytest.raises(SourceUnavailableError, match="closed the replication connection"):
        wire.frames.read()


def test_what_follows_the_answer_to_start_is_kept(wire: Wire) -> None:
    wire.server.sendall(NOTICE + STARTED + framed(b"one")[:6])
    wire.frames.start("START_REPLICATION")
    assert wire.server.recv(100) == b"Q" + (22).to_bytes(4) + b"START_REPLICATION\0"
    wire.server.sendall(framed(b"one")[6:])
    assert wire.read_all(1) == [b"one"]


def test_a_refused_start_says_why(wire: Wire) -> None:
    wire.server.sendall(refused("42704", 'publication "x" does not exist'))
    with pytest.raises(PublicationError):
        wire.frames.start("START_REPLICATION")


def test_what_is_written_is_framed(wire: Wire) -> None:
    wire.frames.write(b"r-status")
    assert wire.server.recv(100) == framed(b"r-status")


def test_a_message_that_no_stream_has_is_refused(wire: Wire) -> None:
    wire.server.sendall(b"T" + (4).to_bytes(4))
    with pytest.raises(SourceUnavailableError, match="kind 0x54"):
        wire.read_all(1)
