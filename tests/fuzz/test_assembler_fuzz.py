"""Whatever frames come in whatever order: feeding raises ``DecodeError`` and reading ``DataError``, nothing else.

A second long; CDC_FUZZ_SECONDS says how long each test takes at least. A failure holds the seed that repeats it.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Callable

import pytest
from assembler_feed import TABLES, layout_of, position
from assembler_programs import random_program
from pgoutput_encoder import XLOG_HEADER

from cdc.errors import DataError, DecodeError
from connectors.postgres import assembler as assembler_module
from connectors.postgres.assembler import Assembler

SECONDS = float(os.environ.get("CDC_FUZZ_SECONDS", "0"))
ROUNDS_MIN = 400

Spoil = Callable[[random.Random, list[bytes]], None]


def damaged(rng: random.Random, frames: list[bytes]) -> None:
    """Replace, remove or repeat a few bytes of a few frames, mostly behind the header."""
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(frames))
        data = bytearray(frames[place])
        start = rng.randint(0 if rng.random() < 0.1 else min(len(data), len(XLOG_HEADER)), len(data))
        stop = min(len(data), start + rng.choice([0, 1, 1, 4]))
        data[start:stop] = rng.choice([b"", b"\0", b"\xff", rng.randbytes(stop - start), data[start:stop] * 2])
        frames[place] = bytes(data)


def cut(rng: random.Random, frames: list[bytes]) -> None:
    """Cut a frame, or the stream."""
    place = rng.randrange(len(frames))
    if rng.random() < 0.5:
        frames[place] = frames[place][: rng.randrange(len(frames[place]))]
    else:
        del frames[place:]


def reordered(rng: random.Random, frames: list[bytes]) -> None:
    """Remove, repeat and move frames: each is valid, but not where it stands."""
    for _ in range(rng.randint(1, 4)):
        if not frames:
            return
        place, to = rng.randrange(len(frames)), rng.randrange(len(frames))
        match rng.randrange(3):
            case 0:
                del frames[place]
            case 1:
                frames.insert(to, frames[place])
            case _:
                frames.insert(to, frames.pop(place))


def shuffled(rng: random.Random, frames: list[bytes]) -> None:
    rng.shuffle(frames)


def spliced(rng: random.Random, frames: list[bytes]) -> None:
    """Go on with another stream in the middle."""
    del frames[rng.randrange(len(frames)) :]
    other = random_program(rng).frames
    frames += other[rng.randrange(len(other)) :]


def one_round(rng: random.Random, spoil: Spoil) -> str:
    """Feed a spoiled program and read all groups; return what came of it."""
    program = random_program(rng)
    frames = list(program.frames)
    spoil(rng, frames)
    assembler = Assembler("shop", position(program.start_lsn), layout_of)
    outcome = "fine"
    try:
        while frames:
            count = rng.choice([1, 5, 50])
            assembler.feed(frames[:count])
            del frames[:count]
            if rng.random() < 0.2:
                assembler.seal()
    except DecodeError as error:
        if " expected " not in str(error):
            pytest.fail(str(error))
        outcome = "refused"
    assembler.seal()
    while (group := assembler.peek()) is not None:
        assembler.pop()
        try:
            for batch in group.read(TABLES):
                assert len(batch) == len(batch.transactions) == len(batch.ordinals)
                assert int(batch.transactions.min()) >= 0
                assert int(batch.transactions.max()) < len(group.transactions)
        except DataError as error:
            if error.table not in {str(table) for table in TABLES}:
                pytest.fail(f"{error}: of table {error.table}")
            outcome = "unreadable"
        group.release()
    assert assembler.memory_bytes >= 0
    assert assembler.spilled_bytes >= 0
    assembler.close()
    return outcome


@pytest.mark.parametrize("spoil", [damaged, cut, reordered, shuffled, spliced])
def test_spoiled_streams_raise_nothing_but_decode_error(spoil: Spoil, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: Counter[str] = Counter()
    first = random.SystemRandom().getrandbits(32)
    end = time.monotonic() + SECONDS
    for seed in itertools.count(first):
        if seed - first >= ROUNDS_MIN and time.monotonic() >= end:
            break
        monkeypatch.setattr(assembler_module, "MEMORY_BYTES", 300 if seed % 4 == 0 else 10**9)
        try:
            outcomes[one_round(random.Random(seed), spoil)] += 1
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    assert outcomes["refused"], "the frames are hardly spoiled"
    assert outcomes["fine"] or outcomes["unreadable"] or spoil is shuffled, "the frames are spoiled beyond use"
