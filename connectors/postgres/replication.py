"""One replication connection: the streaming protocol's commands, and when to read its frames.

psycopg 3 has no replication API of its own; its libpq wrapper has all that it takes to connect and to ask. Frames are
handed over as they come, and no payload is looked into.

Spec: PostgreSQL 18, "Streaming Replication Protocol",
https://www.postgresql.org/docs/18/protocol-replication.html
"""

from __future__ import annotations

import os
import select
import time
from dataclasses import dataclass
from threading import Lock

from psycopg import pq, sql
from psycopg.conninfo import conninfo_to_dict

from cdc.errors import IdentityMismatchError
from connectors.postgres.copyboth import frames_of, is_ready, result_failure
from connectors.postgres.frames import standby_status
from connectors.postgres.lsn import format_lsn, parse_lsn
from connectors.postgres.session import conninfo, refusal

COALESCE_SECONDS = 0.0002
"""How long to let frames gather when they trickle in quick succession. The server sends each message by itself: without
the nap, waking up costs more than reading. Longer, and a Unix socket's 208 KiB of buffer fill and the server stalls."""

FEW_MESSAGES = 12
"""Wake-ups that bring fewer are worth a nap. While the apply thread keeps the interpreter busy they bring more by
themselves, and napping on top of that halves the rate of small transactions."""

BUSY_MESSAGES_PER_SECOND = 5_000
"""The rate above which the nap pays; below it, it would only add to the latency."""


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """What IDENTIFY_SYSTEM says: who the server is, and the end of its flushed log."""

    system_identifier: str
    timeline: int
    lsn: int


class ReplicationConnection:
    """A walsender's other end. Used by one thread, except ``wake``.

    Args:
        dsn: of the database to decode.
        application_name: shown in pg_stat_replication.

    Raises:
        SourceUnavailableError: the server can't be reached.
        OperatorError: it refuses a replication connection.
    """

    def __init__(self, dsn: str, *, application_name: str) -> None:
        info = conninfo(dsn, application_name=application_name, replication="database")
        self._pgconn = pq.PGconn.connect(info.encode())
        if self._pgconn.status != pq.ConnStatus.OK:
            error = refusal(self._pgconn.get_error_message())
            self._pgconn.finish()
            raise error
        self._frames = frames_of(self._pgconn, plain=conninfo_to_dict(info).get("gssencmode") == "disable")
        self._waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._waker_lock = Lock()
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)
        self._poll.register(self._waker, select.POLLIN)
        self._rate = _Rate()
        self._last_count = 0

    @property
    def server_version(self) -> int:
        """Return the version as libpq does: 180006 is 18.6."""
        return self._pgconn.server_version

    def identify(self) -> SystemIdentity:
        """Return the server's identity."""
        values = self._query("IDENTIFY_SYSTEM")
        return SystemIdentity(values[0], int(values[1]), parse_lsn(values[2]))

    def branch_lsn(self, timeline: int, ancestor: int) -> int | None:
        """Return where the server's ``timeline`` left ``ancestor``, or None if it never was on it."""
        content = self._query(f"TIMELINE_HISTORY {timeline:d}")[1]
        for line in content.splitlines():
            fields = line.split()
            if fields and fields[0] == str(ancestor):
                return parse_lsn(fields[1])
        return None

    def start(self, slot: str, lsn: int, options: dict[str, str]) -> None:
        """Begin streaming from ``lsn``, or from where the slot is if that is later.

        Raises:
            SlotInUseError, SlotLostError, PublicationError, ServerSettingError: the server refuses.
        """
        pairs = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(k), sql.Literal(v)) for k, v in options.items()
        )
        command = sql.SQL("START_REPLICATION SLOT {} LOGICAL {} ({})").format(
            sql.Identifier(slot), sql.SQL(format_lsn(lsn)), pairs
        )
        self._frames.start(command.as_string())

    def receive(self, timeout_seconds: float) -> list[bytes]:
        """Wait for frames at most this long, or until woken; return those that have come, in order.

        Raises:
            SourceUnavailableError: the server hung up.
            OperatorError: it ended the stream with an error that won't pass.
        """
        ready = {fd for fd, _ in self._poll.poll(timeout_seconds * 1000)}
        if self._waker in ready:
            os.eventfd_read(self._waker)
        if self._pgconn.socket in ready and self._rate.is_busy and self._last_count < FEW_MESSAGES:
            time.sleep(COALESCE_SECONDS)
        # Also without a signal: what was read ahead shows on no socket.
        frames = self._frames.read()
        self._rate.count(len(frames))
        self._last_count = len(frames)
        return frames

    def wait(self, timeout_seconds: float) -> None:
        """Wait to be woken, at most this long; leave frames where they are."""
        if is_ready(self._waker, select.POLLIN, timeout_seconds):
            os.eventfd_read(self._waker)

    def confirm(self, written: int, flushed: int, *, probe: bool) -> None:
        """Tell the server what we have received and what is durable.

        Args:
            written: end of what we have received, an LSN.
            flushed: end of what is durable downstream, an LSN.
            probe: ask for a keepalive in return.
        """
        status = standby_status(written, flushed, flushed, time.time_ns() // 1000, reply=probe)
        self._frames.write(status)

    def wake(self) -> None:
        """Make ``receive`` return; may be called from any thread, also after ``close``."""
        with self._waker_lock:  # a number that was closed may by now be another connection's
            if self._waker >= 0:
                os.eventfd_write(self._waker, 1)

    def close(self) -> None:
        """Hang up."""
        self._frames.close()
        self._pgconn.finish()
        with self._waker_lock:
            os.close(self._waker)
            self._waker = -1

    def _query(self, command: str) -> list[str]:
        """Run a command of the replication protocol; return its first row."""
        result = self._pgconn.exec_(command.encode())
        if result.status != pq.ExecStatus.TUPLES_OK:
            raise result_failure(result)
        return [(result.get_value(0, column) or b"").decode() for column in range(result.nfields)]


class _Rate:
    """Messages per second over the last tenth of a second or so."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._messages = 0
        self.is_busy = False

    def count(self, messages: int) -> None:
        self._messages += messages
        elapsed = time.monotonic() - self._since
        if elapsed > 0.1:
            self.is_busy = self._messages > BUSY_MESSAGES_PER_SECOND * elapsed
            self._since += elapsed
            self._messages = 0


def guard_identity(identity: SystemIdentity, stored: str, timeline: int, lsn: int, branch: int | None) -> None:
    """Refuse to go on with a server that doesn't hold the history up to the stored position.

    Args:
        identity: the server's.
        stored: system identifier of the stored position.
        timeline: of the stored position.
        lsn: of the stored position.
        branch: where the server's timeline left the stored one; None if it never was on it.

    Raises:
        IdentityMismatchError: another server, or a history without what the lake has already applied.
    """
    hint = (
        "point the source's url back at the server that the lake was copied from; if the change is meant, "
        "run cdc tables resync <source> --all: it copies every table again, keeping the lake's columns"
    )
    if identity.system_identifier != stored:
        raise IdentityMismatchError(
            f"source: expected the server with system identifier {stored}, got {identity.system_identifier}", hint=hint
        )
    if identity.timeline != timeline and (branch is None or branch < lsn):
        raise IdentityMismatchError(
            f"source: expected timeline {timeline} or one that left it after {format_lsn(lsn)}, "
            f"got timeline {identity.timeline}"
            + (f" that left it at {format_lsn(branch)}" if branch is not None else ""),
            hint=hint,
        )
