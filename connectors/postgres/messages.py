"""Every message of logical replication (the ``pgoutput`` plugin), protocol versions 1 to 4, as frozen values.

Spec: PostgreSQL 18, "Logical Replication Message Formats",
https://www.postgresql.org/docs/18/protocol-logicalrep-message-formats.html

The layout tables give offsets from the message's kind byte; ``-`` where an offset depends on what is before it. All
integers are big-endian; LSNs, OIDs and transaction ids are unsigned; a String is UTF-8 and ends in a zero byte. Fields
named ``_us`` are microseconds since 1970-01-01 UTC (on the wire since 2000-01-01).

``xid`` marked "in a stream" is there only between Stream Start and Stream Stop, and None elsewhere; without it the
offsets after it are 4 less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cdc.change import OldImage, Presence

Cell = str | None | Literal[Presence.UNCHANGED]
"""One column of one row: text, SQL NULL, or left alone by the statement and not repeated (TOAST)."""

TupleData = tuple[Cell, ...]
"""A row: one cell for each column of its Relation message, in that order.

::

    size  type   field
    2     Int16  number of columns; then for each:
    1     Byte1  't' text, 'n' NULL, 'u' unchanged; 'b' binary is refused, because it is never asked for
    4     Int32  length, for 't' only
    n     Byten  the value in its type's text format, for 't' only
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """A transaction's first message; version 1.

    ::

        offset  size  type   field
        0       1     Byte1  'B'
        1       8     Int64  final_lsn       - LSN of its commit record
        9       8     Int64  commit_time_us
        17      4     Int32  xid
    """

    final_lsn: int
    commit_time_us: int
    xid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A transaction's last message; version 1.

    ::

        offset  size  type   field
        0       1     Byte1  'C'
        1       1     Int8   flags, 0
        2       8     Int64  commit_lsn      - LSN of the commit record
        10      8     Int64  end_lsn         - end of the commit record: where to resume
        18      8     Int64  commit_time_us
    """

    commit_lsn: int
    end_lsn: int
    commit_time_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The transaction was replicated to this server from another; version 1.

    ::

        offset  size  type    field
        0       1     Byte1   'O'
        1       8     Int64   commit_lsn  - of the commit at the origin
        9       n     String  name        - the origin's
    """

    commit_lsn: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RelationColumn:
    """A column in a Relation message.

    ::

        size  type    field
        1     Int8    flags          - 1: part of the replica identity
        n     String  name
        4     Int32   type_oid
        4     Int32   type_modifier  - signed; -1 for none
    """

    name: str
    is_key: bool
    type_oid: int
    type_modifier: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A table, before the first row of it and again after it has changed; version 1.

    ::

        offset  size  type    field
        0       1     Byte1   'R'
        1       4     Int32   xid               - in a stream
        5       4     Int32   oid               - the table's
        9       n     String  namespace         - empty for pg_catalog
        -       n     String  name
        -       1     Int8    replica_identity  - 'd' default, 'n' nothing, 'f' full, 'i' index
        -       2     Int16   number of columns; then each as ``RelationColumn`` says
    """

    xid: int | None
    oid: int
    namespace: str
    name: str
    replica_identity: str
    columns: tuple[RelationColumn, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Type:
    """A type that isn't built in, before a Relation that uses it; version 1.

    ::

        offset  size  type    field
        0       1     Byte1   'Y'
        1       4     Int32   xid        - in a stream
        5       4     Int32   oid        - the type's
        9       n     String  namespace  - empty for pg_catalog
        -       n     String  name
    """

    xid: int | None
    oid: int
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Insert:
    """A new row; version 1.

    ::

        offset  size  type       field
        0       1     Byte1      'I'
        1       4     Int32      xid           - in a stream
        5       4     Int32      relation_oid
        9       1     Byte1      'N'
        10      n     TupleData  new
    """

    xid: int | None
    relation_oid: int
    new: TupleData


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A changed row; version 1.

    ::

        offset  size  type       field
        0       1     Byte1      'U'
        1       4     Int32      xid           - in a stream
        5       4     Int32      relation_oid
        9       1     Byte1      old_image     - 'K' or 'O'; left out, with ``old``, if nothing of the old row is sent
        -       n     TupleData  old           - 'K': the key as it was, other cells are NULL and mean nothing;
                                                 'O': the row as it was
        -       1     Byte1      'N'
        -       n     TupleData  new
    """

    xid: int | None
    relation_oid: int
    old_image: OldImage
    old: TupleData
    new: TupleData


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """A removed row; version 1.

    ::

        offset  size  type       field
        0       1     Byte1      'D'
        1       4     Int32      xid           - in a stream
        5       4     Int32      relation_oid
        9       1     Byte1      old_image     - 'K' or 'O'
        10      n     TupleData  old           - as in ``Update``
    """

    xid: int | None
    relation_oid: int
    old_image: OldImage
    old: TupleData


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncate:
    """Emptied tables; version 1.

    ::

        offset  size  type   field
        0       1     Byte1  'T'
        1       4     Int32  xid  - in a stream
        5       4     Int32  number of tables
        9       1     Int8   options: 1 cascade, 2 restart_identity
        10      4n    Int32  relation_oids
    """

    xid: int | None
    relation_oids: tuple[int, ...]
    cascade: bool
    restart_identity: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalMessage:
    """What ``pg_logical_emit_message`` wrote, sent if the option ``messages`` is on; version 1.

    ::

        offset  size  type    field
        0       1     Byte1   'M'
        1       4     Int32   xid            - in a stream
        5       1     Int8    transactional  - 0: sent at once, outside of any transaction
        6       8     Int64   lsn
        14      n     String  prefix
        -       4     Int32   length of the content
        -       n     Byten   content
    """

    xid: int | None
    transactional: bool
    lsn: int
    prefix: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStart:
    """Opens a piece of a transaction still in progress; version 2.

    ::

        offset  size  type   field
        0       1     Byte1  'S'
        1       4     Int32  xid
        5       1     Int8   first_segment  - 1: nothing of this transaction was sent before
    """

    xid: int
    first_segment: bool


@dataclass(frozen=True, slots=True)
class StreamStop:
    """Closes the piece; version 2.

    ::

        offset  size  type   field
        0       1     Byte1  'E'
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCommit:
    """A streamed transaction has committed; version 2.

    ::

        offset  size  type   field
        0       1     Byte1  'c'
        1       4     Int32  xid
        5       1     Int8   flags, 0
        6       8     Int64  commit_lsn
        14      8     Int64  end_lsn         - end of the commit record: where to resume
        22      8     Int64  commit_time_us
    """

    xid: int
    commit_lsn: int
    end_lsn: int
    commit_time_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamAbort:
    """A streamed transaction or one of its subtransactions was rolled back; version 2.

    ::

        offset  size  type   field
        0       1     Byte1  'A'
        1       4     Int32  xid
        5       4     Int32  subxid          - equal to ``xid`` for the whole transaction
        9       8     Int64  abort_lsn       - version 4 with streaming 'parallel' only, else None
        17      8     Int64  abort_time_us   - likewise
    """

    xid: int
    subxid: int
    abort_lsn: int | None
    abort_time_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginPrepare:
    """A prepared transaction's first message; version 3.

    ::

        offset  size  type    field
        0       1     Byte1   'b'
        1       8     Int64   prepare_lsn
        9       8     Int64   end_lsn          - end of the prepare record
        17      8     Int64   prepare_time_us
        25      4     Int32   xid
        29      n     String  gid              - the name in PREPARE TRANSACTION
    """

    prepare_lsn: int
    end_lsn: int
    prepare_time_us: int
    xid: int
    gid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """A prepared transaction's last message: it may still commit or roll back; version 3.

    ::

        offset  size  type    field
        0       1     Byte1   'P'
        1       1     Int8    flags, 0
        2       8     Int64   prepare_lsn
        10      8     Int64   end_lsn          - end of the prepare record
        18      8     Int64   prepare_time_us
        26      4     Int32   xid
        30      n     String  gid
    """

    prepare_lsn: int
    end_lsn: int
    prepare_time_us: int
    xid: int
    gid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitPrepared:
    """A prepared transaction has committed; version 3.

    ::

        offset  size  type    field
        0       1     Byte1   'K'
        1       1     Int8    flags, 0
        2       8     Int64   commit_lsn      - of COMMIT PREPARED
        10      8     Int64   end_lsn         - end of that record
        18      8     Int64   commit_time_us
        26      4     Int32   xid
        30      n     String  gid
    """

    commit_lsn: int
    end_lsn: int
    commit_time_us: int
    xid: int
    gid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackPrepared:
    """A prepared transaction was rolled back; version 3.

    ::

        offset  size  type    field
        0       1     Byte1   'r'
        1       1     Int8    flags, 0
        2       8     Int64   prepare_end_lsn   - end of the prepare record
        10      8     Int64   rollback_end_lsn  - end of the ROLLBACK PREPARED record
        18      8     Int64   prepare_time_us
        26      8     Int64   rollback_time_us
        34      4     Int32   xid
        38      n     String  gid
    """

    prepare_end_lsn: int
    rollback_end_lsn: int
    prepare_time_us: int
    rollback_time_us: int
    xid: int
    gid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPrepare:
    """A streamed transaction was prepared; version 3.

    ::

        offset  size  type    field
        0       1     Byte1   'p'
        1       1     Int8    flags, 0
        2       8     Int64   prepare_lsn
        10      8     Int64   end_lsn          - end of the prepare record
        18      8     Int64   prepare_time_us
        26      4     Int32   xid
        30      n     String  gid
    """

    prepare_lsn: int
    end_lsn: int
    prepare_time_us: int
    xid: int
    gid: str


Message = (
    Begin
    | Commit
    | Origin
    | Relation
    | Type
    | Insert
    | Update
    | Delete
    | Truncate
    | LogicalMessage
    | StreamStart
    | StreamStop
    | StreamCommit
    | StreamAbort
    | BeginPrepare
    | Prepare
    | CommitPrepared
    | RollbackPrepared
    | StreamPrepare
)
