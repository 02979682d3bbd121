"""Decoder of logical replication messages (the ``pgoutput`` plugin), protocol versions 1 to 4.

Pure: bytes in, values of ``connectors.postgres.messages`` out, whose docstrings hold the layouts. It knows no socket,
clock, log or configuration, and keeps no state: whether a stream is open is the caller's to say. Only ``DecodeError``
is raised, and its message never holds what a row holds.

Spec: PostgreSQL 18, "Logical Replication Message Formats",
https://www.postgresql.org/docs/18/protocol-logicalrep-message-formats.html
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from cdc.change import OldImage, Presence
from cdc.errors import DecodeError
from connectors.postgres.frames import unix_time_us
from connectors.postgres.messages import (
    Begin,
    BeginPrepare,
    Cell,
    Commit,
    CommitPrepared,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Prepare,
    Relation,
    RelationColumn,
    RollbackPrepared,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    Truncate,
    TupleData,
    Type,
    Update,
)

_UINT8 = Struct("!B")
_UINT16 = Struct("!H")
_UINT32 = Struct("!I")
_INT32 = Struct("!i")
_UINT64 = Struct("!Q")
_INT64 = Struct("!q")
_BEGIN = Struct("!QqI")
_COMMIT = Struct("!BQQq")

_NUL, _TEXT, _NULL, _UNCHANGED, _NEW = b"\0tnuN"
_OLD_IMAGES = {b"K"[0]: OldImage.KEY, b"O"[0]: OldImage.ROW}
_REPLICA_IDENTITIES = b"dnfi"


def decode(data: bytes, *, in_stream: bool, offset: int = 0) -> Message:
    """Read one message.

    Args:
        data: holds exactly one message, from ``offset`` to its end.
        in_stream: whether the message stands between a Stream Start and its Stream Stop, where Relation, Type, Insert,
            Update, Delete, Truncate and Message carry a transaction id.
        offset: bytes before the message; offsets in errors count from the start of ``data``.

    Raises:
        DecodeError: the kind is unknown, or the message is shorter, longer or other than its kind's layout.
    """
    if offset >= len(data):
        raise DecodeError(f"message: expected a kind byte, got the end at offset {offset}")
    entry = _KINDS.get(data[offset])
    if entry is None:
        raise DecodeError(f"message: expected a known kind, got 0x{data[offset]:02x} at offset {offset}")
    subject, read = entry
    cursor = _Cursor(data, offset + 1, subject, in_stream)
    message = read(cursor)
    if cursor.at != len(data):
        raise cursor.error("the end", f"{len(data) - cursor.at} bytes more")
    return message


def read_begin(data: bytes, offset: int) -> tuple[int, int, int]:
    """Return final_lsn, commit_time_us and xid of the Begin at ``offset``: what ``decode`` does, without the object.

    A stream of small transactions is mostly Begins and Commits.

    Raises:
        DecodeError: it isn't a Begin's length.
    """
    if len(data) - offset != 1 + _BEGIN.size:
        raise DecodeError(f"Begin: expected {1 + _BEGIN.size} bytes, got {len(data) - offset} at offset {offset}")
    final_lsn, time, xid = _BEGIN.unpack_from(data, offset + 1)
    return final_lsn, unix_time_us(time, "Begin", offset + 9), xid


def read_commit(data: bytes, offset: int) -> tuple[int, int, int]:
    """Return commit_lsn, end_lsn and commit_time_us of the Commit at ``offset``, as ``read_begin`` does.

    Raises:
        DecodeError: it isn't a Commit's length, or its flags aren't 0.
    """
    if len(data) - offset != 1 + _COMMIT.size:
        raise DecodeError(f"Commit: expected {1 + _COMMIT.size} bytes, got {len(data) - offset} at offset {offset}")
    flags, commit_lsn, end_lsn, time = _COMMIT.unpack_from(data, offset + 1)
    if flags:
        raise DecodeError(f"Commit: expected flags 0x00, got 0x{flags:02x} at offset {offset + 1}")
    return commit_lsn, end_lsn, unix_time_us(time, "Commit", offset + 18)


class _Cursor:
    """A place in a message; every read checks that the bytes are there, and moves on.

    Attributes:
        at: offset of the next byte.
        subject: the message's name, for errors.
    """

    __slots__ = ("at", "data", "in_stream", "subject")

    def __init__(self, data: bytes, at: int, subject: str, in_stream: bool) -> None:
        self.data = data
        self.at = at
        self.subject = subject
        self.in_stream = in_stream

    def error(self, expected: str, got: str, at: int | None = None) -> DecodeError:
        """Return the error to raise; ``at`` None means here."""
        return DecodeError(f"{self.subject}: expected {expected}, got {got} at offset {self.at if at is None else at}")

    def number(self, layout: Struct) -> int:
        """Read one integer."""
        at = self.skip(layout.size)
        (value,) = layout.unpack_from(self.data, at)
        return int(value)

    def skip(self, size: int) -> int:
        """Pass over ``size`` bytes and return where they start."""
        at = self.at
        if size > len(self.data) - at:
            raise self.error(f"{size} bytes", f"{len(self.data) - at}")
        self.at = at + size
        return at

    def string(self) -> str:
        """Read text that ends in a zero byte."""
        at = self.at
        stop = self.data.find(_NUL, at)
        if stop < 0:
            raise self.error("a string that ends in a zero byte", "the end", len(self.data))
        self.at = stop + 1
        return self.utf8(at, stop)

    def utf8(self, start: int, stop: int) -> str:
        """Return the text between two offsets."""
        try:
            return self.data[start:stop].decode()
        except UnicodeDecodeError as error:
            # "from None": the cause's message and fields hold the value.
            raise self.error("UTF-8", "another encoding", start + error.start) from None

    def time_us(self) -> int:
        """Read a timestamp as microseconds since 1970-01-01 UTC."""
        return unix_time_us(self.number(_INT64), self.subject, self.at - 8)

    def choice(self, name: str, choices: bytes) -> int:
        """Read a byte that must be one of ``choices``."""
        value = self.number(_UINT8)
        if value not in choices:
            expected = " or ".join(f"0x{choice:02x}" for choice in choices)
            raise self.error(f"{name} {expected}", f"0x{value:02x}", self.at - 1)
        return value

    def flag(self, name: str) -> bool:
        """Read a byte that must be 0 or 1."""
        return bool(self.choice(name, b"\0\1"))

    def no_flags(self) -> None:
        """Read the flags of a commit or prepare, which the protocol reserves as 0."""
        self.choice("flags", b"\0")

    def xid(self) -> int | None:
        """Read the transaction id that messages in a stream carry."""
        return self.number(_UINT32) if self.in_stream else None

    def old_image(self) -> OldImage:
        """Read which old image follows."""
        return _OLD_IMAGES[self.choice("old image", b"KO")]

    def row(self, *, unchanged: bool) -> TupleData:
        """Read a row; ``unchanged`` says whether its cells may be."""
        cells: list[Cell] = []
        data, size = self.data, len(self.data)
        # Written out, without a call for each byte: small transactions spend most of their time here.
        for _ in range(self.number(_UINT16)):
            at = self.at
            kind = data[at] if at < size else _NUL
            if kind == _TEXT:
                stop = at + 5
                if stop <= size:
                    stop += int.from_bytes(data[at + 1 : stop])
                if stop > size:
                    raise self.error("a cell that ends in its message", "a longer one")
                cells.append(self.utf8(at + 5, stop))
                self.at = stop
            elif kind == _NULL:
                cells.append(None)
                self.at = at + 1
            elif kind == _UNCHANGED and unchanged:
                cells.append(Presence.UNCHANGED)
                self.at = at + 1
            else:
                got = f"0x{kind:02x}" if at < size else "the end"
                raise self.error("cell kind 't', 'n' or 'u'" if unchanged else "cell kind 't' or 'n'", got)
        return tuple(cells)


def _begin(cursor: _Cursor) -> Begin:
    final_lsn, time_us, xid = read_begin(cursor.data, cursor.skip(_BEGIN.size) - 1)
    return Begin(final_lsn=final_lsn, commit_time_us=time_us, xid=xid)


def _commit(cursor: _Cursor) -> Commit:
    commit_lsn, end_lsn, time_us = read_commit(cursor.data, cursor.skip(_COMMIT.size) - 1)
    return Commit(commit_lsn=commit_lsn, end_lsn=end_lsn, commit_time_us=time_us)


def _origin(cursor: _Cursor) -> Origin:
    return Origin(commit_lsn=cursor.number(_UINT64), name=cursor.string())


def _relation(cursor: _Cursor) -> Relation:
    return Relation(
        xid=cursor.xid(),
        oid=cursor.number(_UINT32),
        namespace=cursor.string(),
        name=cursor.string(),
        replica_identity=chr(cursor.choice("replica identity", _REPLICA_IDENTITIES)),
        columns=tuple([_relation_column(cursor) for _ in range(cursor.number(_UINT16))]),
    )


def _relation_column(cursor: _Cursor) -> RelationColumn:
    return RelationColumn(
        is_key=cursor.flag("column flags"),
        name=cursor.string(),
        type_oid=cursor.number(_UINT32),
        type_modifier=cursor.number(_INT32),
    )


def _type(cursor: _Cursor) -> Type:
    return Type(xid=cursor.xid(), oid=cursor.number(_UINT32), namespace=cursor.string(), name=cursor.string())


def _insert(cursor: _Cursor) -> Insert:
    xid, relation_oid = cursor.xid(), cursor.number(_UINT32)
    cursor.choice("new row", b"N")
    return Insert(xid=xid, relation_oid=relation_oid, new=cursor.row(unchanged=True))


def _update(cursor: _Cursor) -> Update:
    xid, relation_oid = cursor.xid(), cursor.number(_UINT32)
    tag = cursor.choice("new row or old image", b"NKO")
    old_image = OldImage.NONE
    old: TupleData = ()
    if tag != _NEW:
        old_image, old = _OLD_IMAGES[tag], cursor.row(unchanged=False)
        cursor.choice("new row", b"N")
    new = cursor.row(unchanged=True)
    return Update(xid=xid, relation_oid=relation_oid, old_image=old_image, old=old, new=new)


def _delete(cursor: _Cursor) -> Delete:
    return Delete(
        xid=cursor.xid(),
        relation_oid=cursor.number(_UINT32),
        old_image=cursor.old_image(),
        old=cursor.row(unchanged=False),
    )


def _truncate(cursor: _Cursor) -> Truncate:
    xid, count = cursor.xid(), cursor.number(_UINT32)
    options = cursor.choice("options", b"\0\1\2\3")
    start = cursor.skip(4 * count)
    return Truncate(
        xid=xid,
        relation_oids=tuple([oid for (oid,) in _UINT32.iter_unpack(cursor.data[start : cursor.at])]),
        cascade=bool(options & 1),
        restart_identity=bool(options & 2),
    )


def _logical_message(cursor: _Cursor) -> LogicalMessage:
    xid, transactional = cursor.xid(), cursor.flag("flags")
    lsn, prefix = cursor.number(_UINT64), cursor.string()
    start = cursor.skip(cursor.number(_UINT32))
    content = cursor.data[start : cursor.at]
    return LogicalMessage(xid=xid, transactional=transactional, lsn=lsn, prefix=prefix, content=content)


def _stream_start(cursor: _Cursor) -> StreamStart:
    return StreamStart(xid=cursor.number(_UINT32), first_segment=cursor.flag("first segment"))


def _stream_stop(_: _Cursor) -> StreamStop:
    return StreamStop()


def _stream_commit(cursor: _Cursor) -> StreamCommit:
    xid = cursor.number(_UINT32)
    cursor.no_flags()
    commit_lsn, end_lsn = cursor.number(_UINT64), cursor.number(_UINT64)
    return StreamCommit(xid=xid, commit_lsn=commit_lsn, end_lsn=end_lsn, commit_time_us=cursor.time_us())


def _stream_abort(cursor: _Cursor) -> StreamAbort:
    xid, subxid = cursor.number(_UINT32), cursor.number(_UINT32)
    if cursor.at == len(cursor.data):
        return StreamAbort(xid=xid, subxid=subxid, abort_lsn=None, abort_time_us=None)
    return StreamAbort(xid=xid, subxid=subxid, abort_lsn=cursor.number(_UINT64), abort_time_us=cursor.time_us())


def _begin_prepare(cursor: _Cursor) -> BeginPrepare:
    return BeginPrepare(
        prepare_lsn=cursor.number(_UINT64),
        end_lsn=cursor.number(_UINT64),
        prepare_time_us=cursor.time_us(),
        xid=cursor.number(_UINT32),
        gid=cursor.string(),
    )


def _prepare(cursor: _Cursor) -> Prepare:
    cursor.no_flags()
    return Prepare(
        prepare_lsn=cursor.number(_UINT64),
        end_lsn=cursor.number(_UINT64),
        prepare_time_us=cursor.time_us(),
        xid=cursor.number(_UINT32),
        gid=cursor.string(),
    )


def _commit_prepared(cursor: _Cursor) -> CommitPrepared:
    cursor.no_flags()
    return CommitPrepared(
        commit_lsn=cursor.number(_UINT64),
        end_lsn=cursor.number(_UINT64),
        commit_time_us=cursor.time_us(),
        xid=cursor.number(_UINT32),
        gid=cursor.string(),
    )


def _rollback_prepared(cursor: _Cursor) -> RollbackPrepared:
    cursor.no_flags()
    return RollbackPrepared(
        prepare_end_lsn=cursor.number(_UINT64),
        rollback_end_lsn=cursor.number(_UINT64),
        prepare_time_us=cursor.time_us(),
        rollback_time_us=cursor.time_us(),
        xid=cursor.number(_UINT32),
        gid=cursor.string(),
    )


def _stream_prepare(cursor: _Cursor) -> StreamPrepare:
    cursor.no_flags()
    return StreamPrepare(
        prepare_lsn=cursor.number(_UINT64),
        end_lsn=cursor.number(_UINT64),
        prepare_time_us=cursor.time_us(),
        xid=cursor.number(_UINT32),
        gid=cursor.string(),
    )


_KINDS: dict[int, tuple[str, Callable[[_Cursor], Message]]] = {
    ord("B"): ("Begin", _begin),
    ord("C"): ("Commit", _commit),
    ord("O"): ("Origin", _origin),
    ord("R"): ("Relation", _relation),
    ord("Y"): ("Type", _type),
    ord("I"): ("Insert", _insert),
    ord("U"): ("Update", _update),
    ord("D"): ("Delete", _delete),
    ord("T"): ("Truncate", _truncate),
    ord("M"): ("Message", _logical_message),
    ord("S"): ("Stream Start", _stream_start),
    ord("E"): ("Stream Stop", _stream_stop),
    ord("c"): ("Stream Commit", _stream_commit),
    ord("A"): ("Stream Abort", _stream_abort),
    ord("b"): ("Begin Prepare", _begin_prepare),
    ord("P"): ("Prepare", _prepare),
    ord("K"): ("Commit Prepared", _commit_prepared),
    ord("r"): ("Rollback Prepared", _rollback_prepared),
    ord("p"): ("Stream Prepare", _stream_prepare),
}
