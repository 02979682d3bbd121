"""Puts whole transactions together from the frames of one stream. No socket, no clock.

Transactions arrive in three ways: one after the other (Begin … Commit); in interleaved segments while they still run
(Stream Start … Stream Stop, then Stream Commit or Abort); or ahead of their outcome (Prepare, then Commit or Rollback
Prepared). All three end as pieces of the pending group, in commit order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from cdc.errors import DecodeError
from cdc.group import CommitGroup, marker
from connectors.postgres import messages as wire
from connectors.postgres.frames import XLOG_DATA_HEADER_BYTES, Keepalive, decode_frame
from connectors.postgres.gathering import Gathered, Pending, Prepared
from connectors.postgres.pgoutput import decode, read_begin, read_commit
from connectors.postgres.pieces import BATCH_BYTES, Layout, Piece
from connectors.postgres.position import PostgresPosition

GROUP_BYTES = 16 << 20
"""A group is closed at the first commit after this many bytes, however busy the lake is."""

MEMORY_BYTES = 32 << 20
"""Bytes that one unfinished transaction may hold in memory before it moves to disk."""

ROW_OVERHEAD_BYTES = 100
"""What a message costs in memory beyond its bytes: the object and its places in three lists."""

_XLOG_DATA = ord("w")
_KIND = XLOG_DATA_HEADER_BYTES
_ROW_KINDS = frozenset(b"IUD")
_BEGIN, _COMMIT = b"BC"


class Assembler:
    """Turns frames into groups.

    Args:
        source: name of the source, for its groups.
        start: transactions that end at or before it have been applied and are dropped.
        layout_of: says for a Relation message how its rows are to be read, or None if nobody wants them.
    """

    def __init__(
        self, source: str, start: PostgresPosition, layout_of: Callable[[wire.Relation], Layout | None]
    ) -> None:
        self._source = source
        self._start = start
        self._layout_of = layout_of
        self._layouts: dict[bytes, Layout | None] = {}
        self._relations: dict[bytes, wire.Relation] = {}
        self._pending = Pending()
        self._ready: deque[tuple[CommitGroup, Pending]] = deque()
        self._open: tuple[int, int | None, int] | None = None  # xid, commit time unless skipped, rows before it
        self._streams: dict[int, Gathered] = {}
        self._stream_xid = 0
        self._prepared: dict[str, Prepared] = {}
        self._preparing: Gathered | None = None
        self._committed: list[tuple[int, int]] = []  # end and prepare LSN of prepared transactions, until durable
        self._target: Gathered | None = None
        self._seal_wanted = False
        self.received_lsn = start.lsn

    @property
    def is_idle(self) -> bool:
        """Whether no commit that was received still waits for its rows or for being offered.

        A streamed transaction that still runs doesn't count: whatever is confirmed meanwhile, it commits later and
        would be sent again as a whole.
        """
        return not (self._ready or self._pending.ids or self._open or self._preparing)

    @property
    def hold_lsn(self) -> int | None:
        """Where the oldest prepared transaction lies that isn't rolled back, or durable.

        Nothing from there on may be confirmed: the server sends it again only if its PREPARE wasn't.
        """
        waiting = [prepared.prepare_lsn for prepared in self._prepared.values()]
        return min(waiting + [prepare_lsn for _, prepare_lsn in self._committed], default=None)

    @property
    def oldest_commit_us(self) -> int | None:
        """Commit time (microseconds since 1970) of the oldest transaction that wasn't taken yet. Any thread."""
        ready, pending, opened = tuple(self._ready), self._pending, self._open
        for group, _ in ready:
            if len(group.transactions):
                return int(group.transactions.commit_times_us[0])
        if pending.commit_times_us:
            return pending.commit_times_us[0]
        return opened[1] if opened else None

    @property
    def memory_bytes(self) -> int:
        """Bytes held in memory. Any thread."""
        ready, pending = tuple(self._ready), self._pending
        held = [*(rest.rows for _, rest in ready), pending.rows, *self._apart()]
        return sum(part.memory_bytes for part in held)

    @property
    def spilled_bytes(self) -> int:
        """Bytes held on disk by what wasn't taken yet. Any thread."""
        ready, pending = tuple(self._ready), self._pending
        grouped = sum(held.spilled_bytes for held in (*(rest for _, rest in ready), pending))
        return grouped + sum(part.spilled_bytes for part in self._apart())

    def _apart(self) -> list[Gathered]:
        """Return what is gathered beside the pending group. Any thread."""
        preparing = [self._preparing] if self._preparing is not None else []
        prepared = [one.rows for one in list(self._prepared.values())]
        return [*list(self._streams.values()), *prepared, *preparing]

    def feed(self, frames: Iterable[bytes]) -> Keepalive | None:
        """Take in frames in the order of the stream; return the last keepalive among them.

        Raises:
            DecodeError: the frames don't follow the protocol. The stream must be opened again.
        """
        keepalive: Keepalive | None = None
        relation, joined = b"", None
        for data in frames:
            kind = data[_KIND] if len(data) > _KIND and data[0] == _XLOG_DATA else 0
            if kind not in _ROW_KINDS:
                relation = b""
                if kind == _BEGIN:
                    self._on_begin(*read_begin(data, _KIND))
                elif kind == _COMMIT:
                    self._on_commit(*read_commit(data, _KIND))
                else:
                    keepalive = self._control(data) or keepalive
                continue
            target = self._target
            if target is None:
                raise DecodeError("row message: expected a transaction around it, got none")
            key = data[_KIND + 1 : _KIND + (9 if self._stream_xid else 5)]
            if key != relation:
                relation, joined = key, self._piece(target, key)
            if joined is not None:
                joined.messages.append(data)
                joined.transactions.append(len(self._pending.ids) if self._open else 0)
                joined.ordinals.append(target.ordinal)
                joined.size_bytes += len(data)
                target.size_bytes += len(data)
                target.memory_bytes += len(data) + ROW_OVERHEAD_BYTES
                target.row_count += 1
            target.ordinal += 1
        self._bound_memory()
        return keepalive

    def seal(self) -> None:
        """Close the pending group at the next boundary between transactions: now, unless one is open."""
        if self._open is None:
            self._close_group()
        else:
            self._seal_wanted = True

    def mark(self, lsn: int) -> None:
        """Close a group without rows: all up to ``lsn`` has arrived, and nothing of it is anybody's. Only when idle."""
        self._ready.append((marker(self._source, self._position(lsn)), Pending()))

    def peek(self) -> CommitGroup | None:
        """Return the oldest closed group, or None."""
        return self._ready[0][0] if self._ready else None

    def pop(self) -> None:
        """Forget the oldest closed group: somebody else owns it now."""
        self._ready.popleft()

    def settle(self, durable_lsn: int) -> None:
        """Note how far the lake is: prepared transactions that committed up to there need not be held any longer."""
        if self._committed:
            self._committed = [lsns for lsns in self._committed if lsns[0] > durable_lsn]

    def close(self) -> None:
        """Give up everything that wasn't taken."""
        for group, _ in self._ready:
            group.release()
        self._pending.release()
        for part in self._apart():
            part.close()

    def _piece(self, target: Gathered, key: bytes) -> Piece | None:
        """Return the piece that this relation's rows join; None if nobody wants them."""
        oid = key[-4:]
        try:
            layout = self._layouts[oid]
        except KeyError:
            number = int.from_bytes(oid, "big")
            raise DecodeError(f"row message: expected a relation described before, got oid {number}") from None
        if layout is not None and layout.mismatch:
            # It may have been found under another name since; the server doesn't describe it again for that.
            layout = self._layouts[oid] = self._layout_of(self._relations[oid])
        if layout is None:
            return None
        in_stream = self._stream_xid != 0
        if in_stream and key[:4] != target.subtransaction:
            target.subtransaction = key[:4]
            target.joinable.clear()
        piece = target.joinable.get(key)
        if piece is None or piece.layout is not layout:
            subtransaction = int.from_bytes(key[:4], "big") if in_stream else 0
            piece = Piece(layout, in_stream=in_stream, subtransaction=subtransaction)
            target.pieces.append(piece)
            target.joinable[key] = piece
        return piece

    def _control(self, data: bytes) -> Keepalive | None:
        """Act on anything but a row."""
        if data[:1] != b"w":
            frame = decode_frame(data)
            return frame if isinstance(frame, Keepalive) else None
        message = decode(data, in_stream=bool(self._stream_xid), offset=_KIND)
        match message:
            case wire.Relation():
                oid = message.oid.to_bytes(4, "big")
                self._relations[oid], self._layouts[oid] = message, self._layout_of(message)
            case wire.Truncate():
                self._on_truncate(message)
            case wire.StreamStart() | wire.StreamStop() | wire.StreamCommit() | wire.StreamAbort():
                self._on_stream(message)
            case wire.Origin() | wire.Type() | wire.LogicalMessage():
                pass
            case _:
                self._on_prepared(message)
        return None

    def _expect_boundary(self, subject: str) -> None:
        if self._target is not None:
            raise DecodeError(f"{subject}: expected no open transaction, got one")

    def _on_begin(self, final_lsn: int, commit_time_us: int, xid: int) -> None:
        self._expect_boundary("Begin")
        if self._seal_wanted:
            self._close_group()
        rows = self._pending.rows
        skipped = final_lsn < self._start.lsn
        self._open = (xid, None if skipped else commit_time_us, rows.row_count)
        self._target = Gathered() if skipped else rows
        self._target.ordinal = 0

    def _on_commit(self, _commit_lsn: int, end_lsn: int, commit_time_us: int) -> None:
        if self._open is None:
            raise DecodeError("Commit: expected an open transaction, got none")
        xid, _, rows_before = self._open
        if self._pending.rows.row_count > rows_before:
            self._count_in(xid, commit_time_us, end_lsn)
        self._open, self._target = None, None
        self.received_lsn = max(self.received_lsn, end_lsn)
        if self._pending.rows.size_bytes >= GROUP_BYTES:
            self._close_group()

    def _on_truncate(self, message: wire.Truncate) -> None:
        if self._target is None:
            raise DecodeError("Truncate: expected a transaction around it, got none")
        for oid in message.relation_oids:
            layout = self._layouts.get(oid.to_bytes(4, "big"))
            if layout is not None:
                index = len(self._pending.ids) if self._open else 0
                piece = Piece(layout, bool(self._stream_xid), message.xid or 0, truncate=True)
                piece.transactions.append(index)
                piece.ordinals.append(self._target.ordinal)
                self._target.pieces.append(piece)
                self._target.row_count += 1
        self._target.joinable.clear()
        self._target.ordinal += 1

    def _on_stream(self, message: wire.StreamStart | wire.StreamStop | wire.StreamCommit | wire.StreamAbort) -> None:
        match message:
            case wire.StreamStart():
                self._expect_boundary("Stream Start")
                if not message.xid:
                    raise DecodeError("Stream Start: expected a transaction id, got 0")
                self._stream_xid = message.xid
                self._target = self._streams.setdefault(message.xid, Gathered())
            case wire.StreamStop():
                if not self._stream_xid:
                    raise DecodeError("Stream Stop: expected an open stream, got none")
                self._stream_xid, self._target = 0, None
            case wire.StreamCommit():
                self._expect_boundary("Stream Commit")
                rows = self._streams.pop(message.xid, None) or Gathered()
                self._adopt(rows, message.xid, message.commit_lsn, message.end_lsn, message.commit_time_us)
            case wire.StreamAbort():
                self._expect_boundary("Stream Abort")
                self._abort(message.xid, message.subxid)

    def _abort(self, xid: int, subxid: int) -> None:
        """Drop a streamed transaction, or the rows of one of its subtransactions."""
        rows = self._streams.get(xid)
        if rows is None:
            return
        if xid == subxid:
            self._streams.pop(xid).close()
            return
        kept = [piece for piece in rows.pieces if piece.subtransaction != subxid]
        dropped = [piece for piece in rows.pieces if piece.subtransaction == subxid]
        rows.pieces = kept
        rows.joinable.clear()
        rows.row_count -= sum(map(len, dropped))
        rows.size_bytes -= sum(piece.size_bytes for piece in dropped)
        in_memory = [piece for piece in dropped if piece.messages]
        rows.memory_bytes -= sum(piece.size_bytes + ROW_OVERHEAD_BYTES * len(piece) for piece in in_memory)

    def _on_prepared(self, message: wire.Message) -> None:
        match message:
            case wire.BeginPrepare():
                self._expect_boundary("Begin Prepare")
                self._preparing = self._target = Gathered()
            case wire.Prepare():
                if self._preparing is None:
                    raise DecodeError("Prepare: expected a prepared transaction around it, got none")
                self._keep(message.gid, Prepared(self._preparing, message.prepare_lsn))
                self._preparing = self._target = None
            case wire.StreamPrepare():
                self._expect_boundary("Stream Prepare")
                rows = self._streams.pop(message.xid, None) or Gathered()
                self._keep(message.gid, Prepared(rows, message.prepare_lsn))
            case wire.CommitPrepared():
                self._expect_boundary("Commit Prepared")
                self._commit_prepared(message)
            case wire.RollbackPrepared():
                self._expect_boundary("Rollback Prepared")
                rolled_back = self._prepared.pop(message.gid, None)
                if rolled_back is not None:
                    rolled_back.rows.close()
            case _:
                raise DecodeError(f"message: expected one between transactions, got {type(message).__name__}")

    def _keep(self, gid: str, prepared: Prepared) -> None:
        """Keep a prepared transaction until its outcome comes."""
        again = self._prepared.pop(gid, None)
        if again is not None:
            again.rows.close()
        self._prepared[gid] = prepared

    def _commit_prepared(self, message: wire.CommitPrepared) -> None:
        skipped = message.commit_lsn < self._start.lsn
        prepared = self._prepared.pop(message.gid, None)
        if prepared is not None:
            if prepared.rows.row_count and not skipped:
                self._committed.append((message.end_lsn, prepared.prepare_lsn))
            self._adopt(prepared.rows, message.xid, message.commit_lsn, message.end_lsn, message.commit_time_us)
        elif not skipped:
            raise DecodeError("Commit Prepared: expected a transaction prepared before, got an unknown one")

    def _adopt(self, rows: Gathered, xid: int, commit_lsn: int, end_lsn: int, commit_time_us: int) -> None:
        """Append a transaction that was gathered apart to the pending group."""
        self.received_lsn = max(self.received_lsn, end_lsn)
        if commit_lsn < self._start.lsn:
            rows.close()
            return
        if not rows.row_count:
            rows.close()
            return
        pending = self._pending
        for piece in rows.pieces:
            piece.shift = len(pending.ids)
        pending.rows.pieces.extend(rows.pieces)
        pending.rows.joinable.clear()
        pending.rows.size_bytes += rows.size_bytes
        pending.rows.memory_bytes += rows.memory_bytes
        pending.rows.row_count += rows.row_count
        pending.files.append(rows)
        self._count_in(xid, commit_time_us, end_lsn)
        if pending.rows.size_bytes >= GROUP_BYTES:
            self._close_group()

    def _count_in(self, xid: int, commit_time_us: int, end_lsn: int) -> None:
        """Make a transaction with changes that somebody wants part of the pending group."""
        self._pending.ids.append(xid)
        self._pending.commit_times_us.append(commit_time_us)
        self._pending.end_lsn = end_lsn

    def _close_group(self) -> None:
        self._seal_wanted = False
        pending = self._pending
        if not pending.ids:
            return
        group = pending.group(self._source, self._position(pending.end_lsn))
        self._ready.append((group, pending))
        self._pending = Pending()

    def _position(self, lsn: int) -> PostgresPosition:
        return PostgresPosition(self._start.system_identifier, self._start.timeline, lsn)

    def _bound_memory(self) -> None:
        """Cut pieces at the size of a batch, and move transactions that have outgrown memory to disk."""
        if self._open is not None and self._target is not self._pending.rows:
            self._target = Gathered()  # the open transaction is skipped
        if self._target is not None:
            for key in [k for k, piece in self._target.joinable.items() if piece.size_bytes >= BATCH_BYTES]:
                del self._target.joinable[key]
        if self._target is not None and self._target.memory_bytes > MEMORY_BYTES:
            self._target.spill()
        if sum(part.memory_bytes for part in self._apart()) > MEMORY_BYTES:
            for part in self._apart():
                if part.memory_bytes:
                    part.spill()
