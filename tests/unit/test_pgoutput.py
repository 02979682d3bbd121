"""Every message, written out by hand from the specification, and messages captured from servers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cdc.change import OldImage, Presence
from cdc.errors import DecodeError
from connectors.postgres.frames import (
    XLOG_DATA_HEADER_BYTES,
    Keepalive,
    XLogData,
    decode_frame,
    standby_status,
)
from connectors.postgres.lsn import format_lsn, parse_lsn
from connectors.postgres.messages import (
    Begin,
    BeginPrepare,
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
    Type,
    Update,
)
from connectors.postgres.pgoutput import decode

CAPTURES = sorted((Path(__file__).parent.parent / "data" / "pgoutput").glob("postgres-*.json"))

# 2000-01-01 00:00:01 UTC: one second (0xf4240 microseconds) on the wire.
SECOND = "00000000000f4240"
SECOND_US = 946_684_801_000_000
# 1999-12-31 23:59:59 UTC.
SECOND_BEFORE = "fffffffffff0bdc0"
SECOND_BEFORE_US = 946_684_799_000_000

LSN_1, LSN_2 = "00000000016b3748", "000000ab0000ffff"
ONE, TWO = 0x16B3748, 0xAB_0000_FFFF

OUTSIDE: list[tuple[str, Message]] = [
    (f"42 {LSN_1} {SECOND} 000002ee", Begin(final_lsn=ONE, commit_time_us=SECOND_US, xid=750)),
    (f"43 00 {LSN_1} {LSN_2} {SECOND_BEFORE}", Commit(commit_lsn=ONE, end_lsn=TWO, commit_time_us=SECOND_BEFORE_US)),
    (f"4f {LSN_2} 6e6f64652d6100", Origin(commit_lsn=TWO, name="node-a")),
    (
        "52 00004001 7075626c696300 70c3a46f706c6500 64 000201 696400 00000017 ffffffff00 6e00 000006a4 000a0006",
        Relation(
            xid=None,
            oid=16385,
            namespace="public",
            name="päople",
            replica_identity="d",
            columns=(
                RelationColumn(name="id", is_key=True, type_oid=23, type_modifier=-1),
                RelationColumn(name="n", is_key=False, type_oid=1700, type_modifier=655366),
            ),
        ),
    ),
    (
        "52 00004001 00 7400 6e 0000",
        Relation(xid=None, oid=16385, namespace="", name="t", replica_identity="n", columns=()),
    ),
    ("59 f0000001 61707000 6d6f6f6400", Type(xid=None, oid=0xF0000001, namespace="app", name="mood")),
    (
        "49 00004001 4e 0003 74 00000002 c3a4 6e 75",
        Insert(xid=None, relation_oid=16385, new=("ä", None, Presence.UNCHANGED)),
    ),
    (
        "55 00004001 4e 0001 74 00000000",
        Update(xid=None, relation_oid=16385, old_image=OldImage.NONE, old=(), new=("",)),
    ),
    (
        "55 00004001 4b 0002 74 00000001 31 6e 4e 0002 74 00000001 32 75",
        Update(xid=None, relation_oid=16385, old_image=OldImage.KEY, old=("1", None), new=("2", Presence.UNCHANGED)),
    ),
    (
        "55 00004001 4f 0001 74 00000001 31 4e 0001 6e",
        Update(xid=None, relation_oid=16385, old_image=OldImage.ROW, old=("1",), new=(None,)),
    ),
    (
        "44 00004001 4b 0002 74 00000001 31 6e",
        Delete(xid=None, relation_oid=16385, old_image=OldImage.KEY, old=("1", None)),
    ),
    ("44 00004001 4f 0001 6e", Delete(xid=None, relation_oid=16385, old_image=OldImage.ROW, old=(None,))),
    ("54 00000000 00", Truncate(xid=None, relation_oids=(), cascade=False, restart_identity=False)),
    (
        "54 00000002 01 00004001 00004002",
        Truncate(xid=None, relation_oids=(16385, 16386), cascade=True, restart_identity=False),
    ),
    ("54 00000001 02 00004001", Truncate(xid=None, relation_oids=(16385,), cascade=False, restart_identity=True)),
    (
        f"4d 01 {LSN_1} 707800 00000002 00ff",
        LogicalMessage(xid=None, transactional=True, lsn=ONE, prefix="px", content=b"\x00\xff"),
    ),
    (f"4d 00 {LSN_1} 00 00000000", LogicalMessage(xid=None, transactional=False, lsn=ONE, prefix="", content=b"")),
    ("53 000002ee 01", StreamStart(xid=750, first_segment=True)),
    ("53 000002ee 00", StreamStart(xid=750, first_segment=False)),
    (
        f"63 000002ee 00 {LSN_1} {LSN_2} {SECOND}",
        StreamCommit(xid=750, commit_lsn=ONE, end_lsn=TWO, commit_time_us=SECOND_US),
    ),
    ("41 000002ee 000002ef", StreamAbort(xid=750, subxid=751, abort_lsn=None, abort_time_us=None)),
    (
        f"41 000002ee 000002ef {LSN_2} {SECOND}",
        StreamAbort(xid=750, subxid=751, abort_lsn=TWO, abort_time_us=SECOND_US),
    ),
    (
        f"62 {LSN_1} {LSN_2} {SECOND} 000002ee 67696400",
        BeginPrepare(prepare_lsn=ONE, end_lsn=TWO, prepare_time_us=SECOND_US, xid=750, gid="gid"),
    ),
    (
        f"50 00 {LSN_1} {LSN_2} {SECOND} 000002ee 67696400",
        Prepare(prepare_lsn=ONE, end_lsn=TWO, prepare_time_us=SECOND_US, xid=750, gid="gid"),
    ),
    (
        f"4b 00 {LSN_1} {LSN_2} {SECOND} 000002ee 67696400",
        CommitPrepared(commit_lsn=ONE, end_lsn=TWO, commit_time_us=SECOND_US, xid=750, gid="gid"),
    ),
    (
        f"72 00 {LSN_1} {LSN_2} {SECOND_BEFORE} {SECOND} 000002ee 67696400",
        RollbackPrepared(
            prepare_end_lsn=ONE,
            rollback_end_lsn=TWO,
            prepare_time_us=SECOND_BEFORE_US,
            rollback_time_us=SECOND_US,
            xid=750,
            gid="gid",
        ),
    ),
    (
        f"70 00 {LSN_1} {LSN_2} {SECOND} 000002ee 67696400",
        StreamPrepare(prepare_lsn=ONE, end_lsn=TWO, prepare_time_us=SECOND_US, xid=750, gid="gid"),
    ),
]

IN_STREAM: list[tuple[str, Message]] = [
    (
        "52 000002ee 00004001 00 7400 66 0000",
        Relation(xid=750, oid=16385, namespace="", name="t", replica_identity="f", columns=()),
    ),
    ("59 000002ee 00004001 00 6d00", Type(xid=750, oid=16385, namespace="", name="m")),
    ("49 000002ee 00004001 4e 0001 74 00000001 31", Insert(xid=750, relation_oid=16385, new=("1",))),
    (
        "55 000002ee 00004001 4b 0001 74 00000001 31 4e 0001 6e",
        Update(xid=750, relation_oid=16385, old_image=OldImage.KEY, old=("1",), new=(None,)),
    ),
    (
        "44 000002ee 00004001 4b 0001 74 00000001 31",
        Delete(xid=750, relation_oid=16385, old_image=OldImage.KEY, old=("1",)),
    ),
    (
        "54 000002ee 00000001 03 00004001",
        Truncate(xid=750, relation_oids=(16385,), cascade=True, restart_identity=True),
    ),
    (
        f"4d 000002ee 01 {LSN_1} 00 00000001 41",
        LogicalMessage(xid=750, transactional=True, lsn=ONE, prefix="", content=b"A"),
    ),
    ("45", StreamStop()),
]

GOLDEN = [(wire, False, message) for wire, message in OUTSIDE] + [(wire, True, message) for wire, message in IN_STREAM]

FRAMES: list[tuple[str, XLogData | Keepalive]] = [
    (f"77 {LSN_1} {LSN_2} {SECOND}", XLogData(start_lsn=ONE, end_lsn=TWO, server_time_us=SECOND_US)),
    (f"6b {LSN_1} {SECOND} 00", Keepalive(wal_end=ONE, server_time_us=SECOND_US, reply_requested=False)),
    (f"6b {LSN_2} {SECOND_BEFORE} 01", Keepalive(wal_end=TWO, server_time_us=SECOND_BEFORE_US, reply_requested=True)),
]


@pytest.mark.parametrize(("wire", "in_stream", "message"), GOLDEN)
def test_message_written_by_hand_is_decoded(wire: str, in_stream: bool, message: Message) -> None:
    assert decode(bytes.fromhex(wire), in_stream=in_stream) == message
    assert decode(b"any header" + bytes.fromhex(wire), in_stream=in_stream, offset=10) == message


def test_every_message_kind_has_a_golden_example() -> None:
    assert {type(message) for _, _, message in GOLDEN} == set(Message.__args__)


@pytest.mark.parametrize(("wire", "in_stream", "message"), GOLDEN)
def test_message_cut_anywhere_is_refused(wire: str, in_stream: bool, message: Message) -> None:
    data = bytes.fromhex(wire)
    for length in range(len(data)):
        if data[0] == ord("A") and length == 9:
            continue  # without its LSN and time a Stream Abort is that of an older protocol version
        with pytest.raises(DecodeError, match=r"^[A-Za-z ]+: expected .+, got .+ at offset \d+$"):
            decode(data[:length], in_stream=in_stream)


@pytest.mark.parametrize(("wire", "in_stream", "message"), GOLDEN)
def test_message_with_bytes_behind_it_is_refused(wire: str, in_stream: bool, message: Message) -> None:
    with pytest.raises(DecodeError):
        decode(bytes.fromhex(wire) + b"\0", in_stream=in_stream)


@pytest.mark.parametrize(
    ("wire", "error"),
    [
        ("7a", "message: expected a known kind, got 0x7a at offset 0"),
        ("", "message: expected a kind byte, got the end at offset 0"),
        ("4500", "Stream Stop: expected the end, got 1 bytes more at offset 1"),
        (f"43 01 {LSN_1} {LSN_2} {SECOND}", "Commit: expected flags 0x00, got 0x01 at offset 1"),
        (
            f"42 {LSN_1} 7fffffffffffffff 000002ee",
            "Begin: expected a time before the year 294247, got a later one at offset 9",
        ),
        (
            "52 00004001 00 7400 78 0000",
            "Relation: expected replica identity 0x64 or 0x6e or 0x66 or 0x69, got 0x78 at offset 8",
        ),
        (
            "52 00004001 00 7400 64 0001 02 00 00000017 ffffffff",
            "Relation: expected column flags 0x00 or 0x01, got 0x02 at offset 11",
        ),
        ("59 00004001 00 ff00", "Type: expected UTF-8, got another encoding at offset 6"),
        ("59 00004001 00 6d", "Type: expected a string that ends in a zero byte, got the end at offset 7"),
        ("49 00004001 4b 0000", "Insert: expected new row 0x4e, got 0x4b at offset 5"),
        ("49 00004001 4e 0001 62 00000001 01", "Insert: expected cell kind 't', 'n' or 'u', got 0x62 at offset 8"),
        (
            "49 00004001 4e 0001 74 ffffffff 31",
            "Insert: expected a cell that ends in its message, got a longer one at offset 8",
        ),
        ("49 00004001 4e 0001 74 00000002 31ff", "Insert: expected UTF-8, got another encoding at offset 14"),
        ("44 00004001 4b 0001 75", "Delete: expected cell kind 't' or 'n', got 0x75 at offset 8"),
        ("44 00004001 4e 0000", "Delete: expected old image 0x4b or 0x4f, got 0x4e at offset 5"),
        ("54 ffffffff 00 00004001", "Truncate: expected 17179869180 bytes, got 4 at offset 6"),
        ("54 00000000 04", "Truncate: expected options 0x00 or 0x01 or 0x02 or 0x03, got 0x04 at offset 5"),
        (f"4d 01 {LSN_1} 00 7fffffff 41", "Message: expected 2147483647 bytes, got 1 at offset 15"),
    ],
)
def test_error_says_what_was_expected_and_where(wire: str, error: str) -> None:
    with pytest.raises(DecodeError) as raised:
        decode(bytes.fromhex(wire), in_stream=False)
    assert str(raised.value) == error


def test_error_about_encoding_holds_nothing_of_the_value() -> None:
    wire = bytes.fromhex("49 00004001 4e 0001 74 00000007") + b"secret\xff"
    with pytest.raises(DecodeError) as raised:
        decode(wire, in_stream=False)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(("wire", "frame"), FRAMES)
def test_frame_written_by_hand_is_decoded(wire: str, frame: XLogData | Keepalive) -> None:
    assert decode_frame(bytes.fromhex(wire)) == frame


@pytest.mark.parametrize(("wire", "frame"), FRAMES)
def test_frame_cut_anywhere_is_refused(wire: str, frame: XLogData | Keepalive) -> None:
    data = bytes.fromhex(wire)
    for length in range(len(data)):
        with pytest.raises(DecodeError):
            decode_frame(data[:length])


def test_payload_of_xlogdata_stays_in_place() -> None:
    header, payload = bytes.fromhex(FRAMES[0][0]), b"E"
    assert decode_frame(header + payload) == FRAMES[0][1]
    assert decode(header + payload, in_stream=True, offset=XLOG_DATA_HEADER_BYTES) == StreamStop()


@pytest.mark.parametrize(
    "wire", ["78", f"6b {LSN_1} {SECOND} 02", f"6b {LSN_1} {SECOND} 0000", f"77 {LSN_1} {LSN_2} 7fffffffffffffff"]
)
def test_frame_that_is_no_frame_is_refused(wire: str) -> None:
    with pytest.raises(DecodeError):
        decode_frame(bytes.fromhex(wire))


def test_standby_status_is_encoded_as_specified() -> None:
    wire = f"72 {LSN_2} {LSN_1} 0000000000000000 {SECOND} 01"
    assert standby_status(TWO, ONE, 0, SECOND_US, reply=True) == bytes.fromhex(wire)
    assert standby_status(0, 0, 0, SECOND_BEFORE_US, reply=False) == bytes.fromhex(f"72 {'00' * 24} {SECOND_BEFORE} 00")


@pytest.mark.parametrize(
    ("lsn", "text"), [(0, "0/0"), (ONE, "0/16B3748"), (TWO, "AB/FFFF"), (2**64 - 1, "FFFFFFFF/FFFFFFFF")]
)
def test_lsn_text_is_the_servers_own(lsn: int, text: str) -> None:
    assert format_lsn(lsn) == text
    assert parse_lsn(text) == lsn


def test_lsn_is_read_with_leading_zeros_and_in_lower_case() -> None:
    assert parse_lsn("0/016b3748") == ONE


@pytest.mark.parametrize(
    "text", ["", "0", "0/", "/0", "0/0/0", "0/123456789", " 0/0", "0/0\n", "-1/0", "0x1/0", "1_0/0", "٣/0"]
)
def test_lsn_text_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(DecodeError, match=r"^LSN: expected .+, got "):
        parse_lsn(text)


def captured_cases() -> list[Any]:
    return [
        pytest.param(case, id=f"{path.stem}-{case['name']}")
        for path in CAPTURES
        for case in json.loads(path.read_text())["cases"]
    ]


def decode_captured(case: dict[str, Any]) -> list[Message]:
    """Decode a case's messages, following its streams."""
    messages: list[Message] = []
    in_stream = False
    for wire in case["messages"]:
        messages.append(decode(bytes.fromhex(wire), in_stream=in_stream))
        if isinstance(messages[-1], StreamStart | StreamStop):
            in_stream = isinstance(messages[-1], StreamStart)
    return messages


@pytest.mark.parametrize("case", captured_cases())
def test_messages_of_a_real_server_are_decoded(case: dict[str, Any]) -> None:
    messages = decode_captured(case)
    assert len(messages) == len(case["messages"])
    begun = [message for message in messages if isinstance(message, Begin | BeginPrepare | StreamStart)]
    assert begun
    in_stream = [message for message in messages if isinstance(message, Insert) and message.xid is not None]
    assert bool(in_stream) == any(isinstance(message, StreamStart) for message in messages)


def test_captures_hold_every_message_kind() -> None:
    cases = [case for path in CAPTURES for case in json.loads(path.read_text())["cases"]]
    assert len(CAPTURES) == 2
    assert len(cases) == 7
    assert {type(message) for case in cases for message in decode_captured(case)} == set(Message.__args__)


def rows_case(number: int) -> list[Message]:
    case = json.loads(CAPTURES[number].read_text())["cases"][0]
    assert case["name"] == "rows"
    return decode_captured(case)


@pytest.mark.parametrize("number", [0, 1])
def test_captured_rows_say_what_their_sql_did(number: int) -> None:
    messages = rows_case(number)
    updates = [message for message in messages if isinstance(message, Update)]
    unchanged = Presence.UNCHANGED
    assert [(update.old_image, update.new) for update in updates] == [
        (OldImage.NONE, ("1", "Ada L.", "glad", "12.50", unchanged)),
        (OldImage.KEY, ("3", "Ada L.", "glad", "12.50", unchanged)),
        (OldImage.ROW, ("1", "two", unchanged)),
        (OldImage.KEY, ("1", "cd  ", "note")),
        (OldImage.KEY, (unchanged, "2")),
    ]
    assert [update.old for update in updates] == [
        (),
        ("1", None, None, None, None),
        ("1", "one", "y" * 2100),
        (None, "ab  ", None),
        ("k" * 2100, None),
    ]
    contents = [message.content for message in messages if isinstance(message, LogicalMessage)]
    assert contents == [b"in the transaction", b"\x00\xff"]
    truncates = [message for message in messages if isinstance(message, Truncate)]
    assert [(len(t.relation_oids), t.cascade, t.restart_identity) for t in truncates] == [
        (2, True, True),
        (1, False, False),
    ]
    assert [message.name for message in messages if isinstance(message, Origin)] == ["elsewhere"]


@pytest.mark.parametrize("number", [0, 1])
def test_captured_frames_of_a_real_server_are_decoded(number: int) -> None:
    case = json.loads(CAPTURES[number].read_text())["cases"][0]
    frames = [bytes.fromhex(frame) for frame in case["frames"]]
    assert [type(decode_frame(frame)) for frame in frames] == [Keepalive, XLogData, XLogData, XLogData]
    payloads = [frame[XLOG_DATA_HEADER_BYTES:].hex() for frame in frames[1:]]
    assert payloads == case["messages"][:3]
