"""The outer frames of streaming replication: what travels in CopyData both ways. Pure: bytes in, values out.

Spec: PostgreSQL 18, "Streaming Replication Protocol", https://www.postgresql.org/docs/18/protocol-replication.html

All integers are big-endian. Times here are microseconds since 1970-01-01 UTC; on the wire since 2000-01-01.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from cdc.errors import DecodeError

XLOG_DATA_HEADER_BYTES = 25
"""Where the pgoutput message starts in an XLogData frame."""

POSTGRES_EPOCH_US = 946_684_800_000_000
"""2000-01-01 UTC in microseconds since 1970-01-01; the server's timestamps count from there."""

_TIME_US_MAX = 2**63 - 1
_XLOG_DATA = Struct("!xQQq")
_KEEPALIVE = Struct("!xQqB")
_STANDBY_STATUS = Struct("!cQQQqB")


@dataclass(frozen=True, slots=True, kw_only=True)
class XLogData:
    """A piece of the log; with a logical slot, one message of the output plugin. Server to client.

    ::

        offset  size  type   field
        0       1     Byte1  'w'
        1       8     Int64  start_lsn       - where the data starts in the log
        9       8     Int64  end_lsn         - the server's end of log when it sent this
        17      8     Int64  server_time_us  - the server's clock when it sent this
        25      n     Byten  the message, left in place: see ``XLOG_DATA_HEADER_BYTES``
    """

    start_lsn: int
    end_lsn: int
    server_time_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepalive:
    """A sign of life. Server to client.

    ::

        offset  size  type   field
        0       1     Byte1  'k'
        1       8     Int64  wal_end          - the server's end of log
        9       8     Int64  server_time_us   - the server's clock when it sent this
        17      1     Byte1  reply_requested  - 1: answer soon, or the server hangs up
    """

    wal_end: int
    server_time_us: int
    reply_requested: bool


def decode_frame(data: bytes) -> XLogData | Keepalive:
    """Read a frame, of XLogData the header only.

    Raises:
        DecodeError: neither kind, or not of its kind's length.
    """
    kind = data[:1]
    if kind == b"w":
        if len(data) < _XLOG_DATA.size:
            raise DecodeError(f"XLogData: expected {_XLOG_DATA.size} bytes or more, got {len(data)} at offset 0")
        start_lsn, end_lsn, time = _XLOG_DATA.unpack_from(data)
        return XLogData(start_lsn=start_lsn, end_lsn=end_lsn, server_time_us=unix_time_us(time, "XLogData", 17))
    if kind == b"k":
        if len(data) != _KEEPALIVE.size:
            raise DecodeError(f"Keepalive: expected {_KEEPALIVE.size} bytes, got {len(data)} at offset 0")
        wal_end, time, reply = _KEEPALIVE.unpack(data)
        if reply > 1:
            raise DecodeError(f"Keepalive: expected 0 or 1 for reply requested, got {reply} at offset 17")
        time_us = unix_time_us(time, "Keepalive", 9)
        return Keepalive(wal_end=wal_end, server_time_us=time_us, reply_requested=bool(reply))
    raise DecodeError(f"frame: expected kind 'w' or 'k', got {f'0x{data[0]:02x}' if data else 'no byte'} at offset 0")


def standby_status(written: int, flushed: int, applied: int, clock_us: int, reply: bool) -> bytes:
    """Return a standby status update: how far the client is, and ``clock_us``, its clock in microseconds since 1970.

    Client to server.

    ::

        offset  size  type   field
        0       1     Byte1  'r'
        1       8     Int64  written   - end of what was received
        9       8     Int64  flushed   - end of what is durable; a logical slot confirms up to here
        17      8     Int64  applied   - end of what is visible
        25      8     Int64  clock_us  - the client's clock
        33      1     Byte1  reply     - 1: answer with a Keepalive now
    """
    return _STANDBY_STATUS.pack(b"r", written, flushed, applied, clock_us - POSTGRES_EPOCH_US, reply)


def unix_time_us(time: int, subject: str, offset: int) -> int:
    """Convert a wire timestamp to microseconds since 1970-01-01 UTC.

    Raises:
        DecodeError: the result doesn't fit 64 bits, signed: the last 30 years before the year 294277, never a clock.
    """
    unix_us = time + POSTGRES_EPOCH_US
    if unix_us > _TIME_US_MAX:
        raise DecodeError(f"{subject}: expected a time before the year 294247, got a later one at offset {offset}")
    return unix_us
