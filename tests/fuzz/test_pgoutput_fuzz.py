"""Whatever the bytes: the decoders return a value or raise ``DecodeError``, nothing else.

A second long; CDC_FUZZ_SECONDS says how long each test takes at least. A failure holds the seed that repeats it.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pgoutput_encoder import Row

from cdc.change import OldImage, Op, Presence
from cdc.errors import DecodeError
from cdc.schema import Column, RowIdentity, TableId, TableSchema, Text
from connectors.postgres import rows as rows_module
from connectors.postgres.frames import decode_frame
from connectors.postgres.lsn import parse_lsn
from connectors.postgres.pgoutput import decode

SECONDS = float(os.environ.get("CDC_FUZZ_SECONDS", "0"))
ROUNDS_MIN = 2000
UNCHANGED = Presence.UNCHANGED
CAPTURES = sorted((Path(__file__).parent.parent / "data" / "pgoutput").glob("postgres-*.json"))

# Where a decoder decides: kinds, tags, lengths and counts at their limits, characters cut in two.
TELLING = [b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\xc3", b"\xed\xa0\x80"]
TELLING += [bytes([kind]) for kind in b"BCORYIUDTMSEcAbPKrpNOtnu"]


@cache
def corpus() -> list[bytes]:
    """Return the captured messages and frames, one of each kind and length."""
    cases = [case for path in CAPTURES for case in json.loads(path.read_text())["cases"]]
    messages = [bytes.fromhex(wire) for case in cases for wire in [*case["messages"], *case["frames"]]]
    by_form = {(message[:1], len(message)): message for message in messages}
    assert len(by_form) > 50
    return list(by_form.values())


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Return the bytes with one to four of them replaced, removed, repeated or added."""
    result = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        start = rng.randint(0, len(result))
        stop = min(len(result), start + rng.choice([0, 1, 1, 4, 40]))
        match rng.randrange(4):
            case 0:
                result[start:stop] = rng.randbytes(stop - start)
            case 1:
                del result[start:stop]
            case 2:
                result[start:start] = result[start:stop]
            case _:
                result[start:stop] = rng.choice(TELLING)
    return bytes(result)


def attempt(decoder: Callable[[random.Random], object]) -> None:
    """Call the decoder with a source of chance, over and over, and let nothing but ``DecodeError`` pass."""
    first = random.SystemRandom().getrandbits(32)
    end = time.monotonic() + SECONDS
    for seed in itertools.count(first):
        if seed - first >= ROUNDS_MIN and time.monotonic() >= end:
            return
        try:
            decoder(random.Random(seed))
        except DecodeError as error:
            if " expected " not in str(error):
                pytest.fail(f"seed {seed}: {error}")
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


def test_random_bytes_raise_nothing_but_decode_error() -> None:
    def random_bytes(rng: random.Random) -> None:
        data = rng.choice([b"", *TELLING]) + rng.randbytes(rng.randint(0, 60))
        decode(data, in_stream=rng.random() < 0.5, offset=rng.choice([0, 0, 25]))

    attempt(random_bytes)


def test_mutated_messages_raise_nothing_but_decode_error() -> None:
    def mutated_message(rng: random.Random) -> None:
        decode(mutated(rng, rng.choice(corpus())), in_stream=rng.random() < 0.5)

    attempt(mutated_message)


def test_mutated_frames_raise_nothing_but_decode_error() -> None:
    def mutated_frame(rng: random.Random) -> None:
        frames = [data for data in corpus() if data[:1] in b"wk"]
        decode_frame(mutated(rng, rng.choice(frames)))

    attempt(mutated_frame)


@pytest.mark.parametrize("columnar_rows_min", [1, 10**9])
def test_mutated_runs_of_rows_raise_nothing_but_decode_error(
    columnar_rows_min: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "COLUMNAR_ROWS_MIN", columnar_rows_min)
    names = ["id", "name", "mood", "price", "big"]
    columns = tuple(Column(name, Text(), "text", key_ordinal=0 if name == "id" else None) for name in names)
    schema = TableSchema(TableId("public", "person"), "postgres", columns, RowIdentity.KEY)
    column_count = len(names).to_bytes(2)
    whole = [data for data in corpus() if data[:1] in b"IUD" and data[6:8] == column_count]
    assert {data[:1] for data in whole} == {b"I", b"U", b"D"}
    cells = ["4", "Zoë", None, "", "z" * 300]
    whole.append(Row(op=Op.DELETE, old_image=OldImage.ROW, old=cells).encode())
    whole.append(Row(op=Op.UPDATE, old_image=OldImage.ROW, old=cells, new=["4", "Zoe", None, "1", UNCHANGED]).encode())

    def mutated_run(rng: random.Random) -> None:
        messages = rng.choices(whole, k=rng.randint(1, 12))
        for _ in range(rng.randint(0, 2)):
            place = rng.randrange(len(messages))
            messages[place] = mutated(rng, messages[place])
        some = np.zeros(len(messages), np.int64)
        batch = rows_module.decode_rows(
            messages,
            offset=0,
            in_stream=rng.random() < 0.1,
            schema=schema,
            wire_columns=names,
            transactions=some,
            ordinals=some,
        )
        for array in (*batch.columns.values(), *batch.old.values()):
            array.validate(full=True)
            assert len(array) == len(messages)

    attempt(mutated_run)


def test_random_text_as_lsn_raises_nothing_but_decode_error() -> None:
    attempt(lambda rng: parse_lsn("".join(rng.choices("0123456789abcdefABCDEF/_-+ \nx٣", k=rng.randint(0, 18)))))
