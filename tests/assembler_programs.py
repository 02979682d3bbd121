"""Random programs of transactions, as a server would send them, and what they mean; for tests of the assembler.

A transaction's style says how it arrives and ends. Streamed ones arrive in segments between the others.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

import pgoutput_frames as sent
from assembler_feed import ITEMS, NAMES, ORDERS, SECRETS, START_US, WANTED, Seen

from cdc.change import Op
from cdc.schema import TableId

STYLES = (
    "plain",
    "prepared",
    "prepared, rolled back",
    "streamed",
    "streamed, aborted",
    "streamed, prepared",
    "streamed, prepared, rolled back",
)
STEP = 10
"""LSNs between two records."""


@dataclass(slots=True)
class _Transaction:
    xid: int
    style: str
    frames: list[list[bytes]]
    """Its body, change by change: the change's frame, before it perhaps its Relation again."""
    rows: list[tuple[TableId, int, Seen]]
    """What a wanted table gets: the table, whose subtransaction, the row."""
    aborted: dict[int, int]
    """Number of changes after which a subtransaction aborts, by its id."""

    @property
    def is_streamed(self) -> bool:
        return self.style.startswith("streamed")

    @property
    def kept(self) -> list[tuple[TableId, Seen]]:
        return [(table, row) for table, subxid, row in self.rows if subxid not in self.aborted]


@dataclass(slots=True)
class Program:
    """What was sent, and what has to come out.

    Attributes:
        start_lsn: what committed before it must not come.
        committed: ids and end LSNs of the transactions that must come, in order.
        features: what occurred: styles, ``skipped``, ``subtransaction aborted`` and so on.
    """

    frames: list[bytes] = field(default_factory=list)
    start_lsn: int = 0
    rows: dict[TableId, list[Seen]] = field(default_factory=dict)
    committed: list[tuple[int, int]] = field(default_factory=list)
    features: set[str] = field(default_factory=set)


def random_program(rng: random.Random) -> Program:
    """Return a program of up to a dozen transactions."""
    return _Writer(rng).write()


class _Writer:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.program = Program()
        self.lsn = 1000
        self.xid = rng.choice([3, 2**31, 2**32 - 200])
        self.value = 0
        self.running: list[tuple[_Transaction, int]] = []
        self.prepared: list[_Transaction] = []
        self.finished: list[tuple[_Transaction, int, int]] = []

    def write(self) -> Program:
        rng = self.rng
        self.send(*(sent.relation(oid, name) for oid, name in NAMES.items()))
        unborn = [self.transaction(rng.choice(STYLES)) for _ in range(rng.randint(1, 12))]
        while unborn or self.running or self.prepared:
            choices: list[Callable[[], None]] = [self.keepalive]
            if unborn:
                choices += [lambda: self.begin(unborn.pop())] * 3
            if self.running:
                choices += [self.segment] * 4
            if self.prepared:
                choices += [self.outcome]
            rng.choice(choices)()
        self.close()
        return self.program

    def send(self, *frames: bytes) -> None:
        self.program.frames += frames

    def advance(self) -> int:
        self.lsn += STEP
        return self.lsn

    def transaction(self, style: str) -> _Transaction:
        """Invent a body of rows and truncates, in up to three subtransactions."""
        rng = self.rng
        xid, self.xid = self.xid, self.xid + 10
        streamed = style.startswith("streamed")
        transaction = _Transaction(xid, style, [], [], {})
        of = [xid, xid + 1, xid + 2] if rng.random() < 0.6 else [xid]
        for place in range(rng.choice([0, 1, 2, 5, 20])):
            subxid = rng.choice(of)
            if subxid in transaction.aborted:
                subxid = xid
            self.change(transaction, place, subxid, subxid if streamed else None)
            if streamed and subxid != xid and rng.random() < 0.2:
                transaction.aborted[subxid] = place + 1
        return transaction

    def change(self, transaction: _Transaction, ordinal: int, owner: int, subxid: int | None) -> None:
        rng = self.rng
        if rng.random() < 0.1:
            oids = rng.sample([ORDERS, ITEMS, SECRETS], rng.randint(1, 3))
            transaction.frames.append([sent.truncate(*oids, subxid=subxid)])
            seen = Seen(Op.TRUNCATE, (), transaction.xid, ordinal)
            transaction.rows += [(WANTED[oid], owner, seen) for oid in oids if oid in WANTED]
            self.program.features.add("truncate")
            return
        oid = rng.choice([ORDERS, ORDERS, ITEMS, SECRETS])
        self.value += 1
        key, note = str(self.value), rng.choice(["", "n", "é" * 20, "x" * 200])
        op = rng.choice([Op.INSERT, Op.UPDATE, Op.DELETE])
        if op is Op.DELETE:
            frame, cells = sent.delete(oid, key, None, subxid=subxid), (key,)
        elif op is Op.UPDATE:
            frame, cells = sent.update(oid, key, note, subxid=subxid), (key, note)
        else:
            frame, cells = sent.insert(oid, key, note, subxid=subxid), (key, note)
        if oid in WANTED:
            transaction.rows.append((WANTED[oid], owner, Seen(op, cells, transaction.xid, ordinal)))
        else:
            self.program.features.add("unwanted table")
        if rng.random() < 0.1:
            transaction.frames.append([sent.relation(oid, NAMES[oid], subxid=subxid), frame])
            self.program.features.add("relation sent again")
        else:
            transaction.frames.append([frame])

    def begin(self, transaction: _Transaction) -> None:
        lsn = self.advance()
        gid, at = f"gid-{transaction.xid}", {"prepare_lsn": lsn, "end_lsn": lsn + 5, "time_us": START_US}
        if transaction.is_streamed:
            self.running.append((transaction, 0))
        elif transaction.style == "plain":
            time_us = START_US + lsn
            self.send(sent.begin(transaction.xid, commit_lsn=lsn, time_us=time_us))
            self.send(*chain(*transaction.frames))
            self.send(sent.commit(commit_lsn=lsn, end_lsn=lsn + 5, time_us=time_us))
            self.finished.append((transaction, lsn, lsn + 5))
            self.program.features.add("plain")
        else:
            self.send(sent.begin_prepare(transaction.xid, gid, **at))
            self.send(*chain(*transaction.frames))
            self.send(sent.prepare(transaction.xid, gid, **at))
            self.prepared.append(transaction)

    def segment(self) -> None:
        """Send a segment of one of the streamed transactions, or its end."""
        place = self.rng.randrange(len(self.running))
        transaction, at = self.running.pop(place)
        if at == len(transaction.frames) and at:
            self.end(transaction)
            return
        stop = min(len(transaction.frames), at + self.rng.randint(1, 6))
        stop = min([stop, *(n for n in transaction.aborted.values() if n > at)])
        self.send(sent.stream_start(transaction.xid, first=not at), *chain(*transaction.frames[at:stop]))
        self.send(sent.stream_stop())
        for subxid, after in transaction.aborted.items():
            if after == stop:
                self.send(sent.stream_abort(transaction.xid, subxid, with_lsn=self.rng.random() < 0.5))
                self.program.features.add("subtransaction aborted")
        if stop:
            self.running.append((transaction, stop))
        else:
            self.end(transaction)
        if len(self.running) > 1:
            self.program.features.add("interleaved")

    def end(self, transaction: _Transaction) -> None:
        lsn, xid = self.advance(), transaction.xid
        if transaction.style == "streamed":
            self.send(sent.stream_commit(xid, commit_lsn=lsn, end_lsn=lsn + 5, time_us=START_US + lsn))
            self.finished.append((transaction, lsn, lsn + 5))
            self.program.features.add("streamed")
        elif transaction.style == "streamed, aborted":
            self.send(sent.stream_abort(xid, xid))
            self.program.features.add("streamed, aborted")
        else:
            gid = f"gid-{xid}"
            self.send(sent.stream_prepare(xid, gid, prepare_lsn=lsn, end_lsn=lsn + 5, time_us=START_US))
            self.prepared.append(transaction)

    def outcome(self) -> None:
        """Commit or roll back one of the prepared transactions."""
        transaction = self.prepared.pop(self.rng.randrange(len(self.prepared)))
        lsn, gid = self.advance(), f"gid-{transaction.xid}"
        if transaction.style.endswith("rolled back"):
            ends = {"prepare_end_lsn": lsn - STEP, "end_lsn": lsn + 5}
            self.send(sent.rollback_prepared(transaction.xid, gid, time_us=START_US + lsn, **ends))
        else:
            ends = {"commit_lsn": lsn, "end_lsn": lsn + 5}
            self.send(sent.commit_prepared(transaction.xid, gid, time_us=START_US + lsn, **ends))
            self.finished.append((transaction, lsn, lsn + 5))
        self.program.features.add(transaction.style)

    def keepalive(self) -> None:
        self.send(sent.keepalive(self.lsn))

    def close(self) -> None:
        """Choose where to start from, and say what has to come."""
        program, rng = self.program, self.rng
        if self.finished and rng.random() < 0.4:
            program.start_lsn = rng.choice(self.finished)[2]
        for transaction, commit_lsn, end_lsn in self.finished:
            if commit_lsn < program.start_lsn:
                program.features.add(f"skipped: {transaction.style}")
            elif transaction.kept:
                program.committed.append((transaction.xid, end_lsn))
                for table, row in transaction.kept:
                    program.rows.setdefault(table, []).append(row)
            else:
                program.features.add("empty")
