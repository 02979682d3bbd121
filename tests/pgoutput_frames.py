"""Whole frames of a stream, for tests only: every message that isn't a row, and rows, behind an XLogData header.

Times are microseconds since 1970-01-01 UTC, as everywhere in the connector.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack

from pgoutput_encoder import XLOG_HEADER, Row

from cdc.change import OldImage, Op
from connectors.postgres.frames import POSTGRES_EPOCH_US


def framed(message: bytes) -> bytes:
    """Return the message in an XLogData frame."""
    return XLOG_HEADER + message


def keepalive(wal_end: int, *, time_us: int = POSTGRES_EPOCH_US, reply_requested: bool = False) -> bytes:
    return pack("!cQqB", b"k", wal_end, time_us - POSTGRES_EPOCH_US, reply_requested)


def begin(xid: int, *, commit_lsn: int, time_us: int) -> bytes:
    return framed(pack("!cQqI", b"B", commit_lsn, time_us - POSTGRES_EPOCH_US, xid))


def commit(*, commit_lsn: int, end_lsn: int, time_us: int) -> bytes:
    return framed(pack("!cBQQq", b"C", 0, commit_lsn, end_lsn, time_us - POSTGRES_EPOCH_US))


def relation(
    oid: int,
    name: str,
    columns: Sequence[str] = ("id", "note"),
    *,
    namespace: str = "public",
    subxid: int | None = None,
    type_oid: int = 25,
) -> bytes:
    """Return a Relation whose first column is the key."""
    described = b"".join(
        pack("!B", place == 0) + column.encode() + b"\0" + pack("!Ii", type_oid, -1)
        for place, column in enumerate(columns)
    )
    names = namespace.encode() + b"\0" + name.encode() + b"\0"
    return framed(_head(b"R", subxid) + pack("!I", oid) + names + b"d" + pack("!H", len(columns)) + described)


def insert(oid: int, *cells: str, subxid: int | None = None) -> bytes:
    return framed(Row(op=Op.INSERT, new=cells).encode(relation_oid=oid, xid=subxid))


def update(oid: int, *cells: str, subxid: int | None = None) -> bytes:
    return framed(Row(op=Op.UPDATE, new=cells).encode(relation_oid=oid, xid=subxid))


def delete(oid: int, *cells: str | None, subxid: int | None = None) -> bytes:
    return framed(Row(op=Op.DELETE, old_image=OldImage.KEY, old=cells).encode(relation_oid=oid, xid=subxid))


def truncate(*oids: int, subxid: int | None = None) -> bytes:
    return framed(_head(b"T", subxid) + pack(f"!IB{len(oids)}I", len(oids), 0, *oids))


def origin(name: str) -> bytes:
    return framed(b"O" + pack("!Q", 1) + name.encode() + b"\0")


def logical_message(content: bytes, *, subxid: int | None = None) -> bytes:
    return framed(_head(b"M", subxid) + pack("!BQ", 1, 1) + b"prefix\0" + pack("!I", len(content)) + content)


def stream_start(xid: int, *, first: bool = True) -> bytes:
    return framed(pack("!cIB", b"S", xid, first))


def stream_stop() -> bytes:
    return framed(b"E")


def stream_commit(xid: int, *, commit_lsn: int, end_lsn: int, time_us: int) -> bytes:
    return framed(pack("!cIBQQq", b"c", xid, 0, commit_lsn, end_lsn, time_us - POSTGRES_EPOCH_US))


def stream_abort(xid: int, subxid: int, *, with_lsn: bool = False) -> bytes:
    return framed(pack("!cII", b"A", xid, subxid) + (pack("!Qq", 1, 1) if with_lsn else b""))


def begin_prepare(xid: int, gid: str, *, prepare_lsn: int, end_lsn: int, time_us: int) -> bytes:
    return framed(b"b" + _prepared(xid, gid, prepare_lsn, end_lsn, time_us))


def prepare(xid: int, gid: str, *, prepare_lsn: int, end_lsn: int, time_us: int) -> bytes:
    return framed(b"P\0" + _prepared(xid, gid, prepare_lsn, end_lsn, time_us))


def stream_prepare(xid: int, gid: str, *, prepare_lsn: int, end_lsn: int, time_us: int) -> bytes:
    return framed(b"p\0" + _prepared(xid, gid, prepare_lsn, end_lsn, time_us))


def commit_prepared(xid: int, gid: str, *, commit_lsn: int, end_lsn: int, time_us: int) -> bytes:
    return framed(b"K\0" + _prepared(xid, gid, commit_lsn, end_lsn, time_us))


def rollback_prepared(xid: int, gid: str, *, prepare_end_lsn: int, end_lsn: int, time_us: int) -> bytes:
    wire_us = time_us - POSTGRES_EPOCH_US
    return framed(b"r\0" + pack("!QQqqI", prepare_end_lsn, end_lsn, wire_us, wire_us, xid) + gid.encode() + b"\0")


def _head(kind: bytes, subxid: int | None) -> bytes:
    return kind if subxid is None else kind + pack("!I", subxid)


def _prepared(xid: int, gid: str, lsn: int, end_lsn: int, time_us: int) -> bytes:
    return pack("!QQqI", lsn, end_lsn, time_us - POSTGRES_EPOCH_US, xid) + gid.encode() + b"\0"
