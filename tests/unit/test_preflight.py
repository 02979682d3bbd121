"""What ``cdc check`` makes of a server, its slot and its tables: all good, and one thing wrong at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from catalog_tables import table_of

from cdc.contracts import Finding, Severity
from cdc.schema import RowIdentity, TableId
from connectors.postgres.preflight import LOSSLESS_MINORS, judge_server, judge_slot, judge_tables

OK, WARNING, ERROR = Severity.OK, Severity.WARNING, Severity.ERROR

GOOD: dict[str, Any] = {
    "version": 180006,
    "version_text": "18.6",
    "wal_level": "logical",
    "max_slots": 10,
    "slots": 1,
    "max_senders": 10,
    "senders": 1,
    "keep_size": "50GB",
    "synchronous_commit": "on",
    "encoding": "UTF8",
    "sender_timeout_ms": 60_000,
    "standby": False,
    "superuser": False,
    "replication": True,
    "may_create": True,
    "role": "cdc",
    "database": "shop",
    "oldest_transaction_seconds": 0.0,
}
SLOT: dict[str, Any] = {
    "plugin": "pgoutput",
    "slot_type": "logical",
    "wal_status": "reserved",
    "active": False,
    "active_pid": None,
}
ORDERS = TableId("public", "Orders")


def wrong(findings: Iterable[Finding]) -> list[Finding]:
    """Return what isn't OK; whatever isn't says how to mend it, and whatever is needs no mending."""
    found = list(findings)
    assert found
    for finding in found:
        assert finding.subject
        assert finding.message
        assert bool(finding.fix) == (finding.severity is not OK)
    return [finding for finding in found if finding.severity is not OK]


def test_a_good_server_has_nothing_wrong() -> None:
    findings = list(judge_server(GOOD, slot_exists=False))
    assert wrong(findings) == []
    assert {finding.subject for finding in findings} == {
        "version",
        "wal_level",
        "max_replication_slots",
        "max_wal_senders",
        "replication privilege",
        "publication privilege",
        "max_slot_wal_keep_size",
    }


@pytest.mark.parametrize(
    ("change", "subject", "severity", "fix"),
    [
        ({"version": 120017, "version_text": "12.17"}, "version", ERROR, "upgrade the server"),
        ({"version": 150012, "version_text": "15.12"}, "version", WARNING, "update to 15.13 or later"),
        ({"standby": True}, "standby", ERROR, "primary"),
        ({"wal_level": "replica"}, "wal_level", ERROR, "ALTER SYSTEM SET wal_level = logical;"),
        ({"wal_level": "minimal"}, "wal_level", ERROR, "restart"),
        ({"slots": 10}, "max_replication_slots", ERROR, "ALTER SYSTEM SET max_replication_slots = 20;"),
        ({"senders": 10}, "max_wal_senders", ERROR, "ALTER SYSTEM SET max_wal_senders = 20;"),
        ({"replication": False}, "replication privilege", ERROR, 'ALTER ROLE "cdc" WITH REPLICATION;'),
        ({"may_create": False}, "publication privilege", ERROR, 'GRANT CREATE ON DATABASE "shop" TO "cdc";'),
        ({"keep_size": "-1"}, "max_slot_wal_keep_size", WARNING, "ALTER SYSTEM SET max_slot_wal_keep_size = "),
        ({"synchronous_commit": "off"}, "synchronous_commit", WARNING, "ALTER SYSTEM SET synchronous_commit = on;"),
        ({"encoding": "SQL_ASCII"}, "server_encoding", WARNING, "UTF8"),
        ({"sender_timeout_ms": 5000}, "wal_sender_timeout", WARNING, "ALTER SYSTEM SET wal_sender_timeout = '60s';"),
        ({"oldest_transaction_seconds": 601.0}, "long transaction", WARNING, "SELECT pid, xact_start"),
    ],
)
def test_one_wrong_thing_is_the_only_finding_and_says_how_to_mend_it(
    change: dict[str, Any], subject: str, severity: Severity, fix: str
) -> None:
    (finding,) = wrong(judge_server({**GOOD, **change}, slot_exists=False))
    assert (finding.subject, finding.severity) == (subject, severity)
    assert fix in finding.fix


@pytest.mark.parametrize(
    "change",
    [
        {"version": 130021},
        {"version": 150013},
        {"version": 190000},
        {"slots": 9, "senders": 9},
        {"sender_timeout_ms": 0},
        {"sender_timeout_ms": 10_000},
        {"oldest_transaction_seconds": 600.0},
        {"synchronous_commit": "remote_apply"},
        {"encoding": "LATIN1"},
    ],
)
def test_what_is_just_good_enough_is_good(change: dict[str, Any]) -> None:
    assert wrong(judge_server({**GOOD, **change}, slot_exists=False)) == []


@pytest.mark.parametrize("major", LOSSLESS_MINORS)
def test_every_version_before_the_fix_of_a_data_loss_is_warned_of(major: int) -> None:
    last_bad = major * 10_000 + LOSSLESS_MINORS[major] - 1
    for version, expected in ((last_bad, ["version"]), (last_bad + 1, [])):
        found = wrong(judge_server({**GOOD, "version": version}, slot_exists=False))
        assert [finding.subject for finding in found] == expected


def test_slots_may_be_used_up_by_our_own() -> None:
    assert wrong(judge_server({**GOOD, "slots": 10}, slot_exists=True)) == []


def test_everything_that_is_wrong_is_found_at_once() -> None:
    bad = {"wal_level": "replica", "slots": 10, "senders": 10, "replication": False, "may_create": False}
    found = wrong(judge_server({**GOOD, **bad, "standby": True, "version": 120000}, slot_exists=False))
    assert len(found) == 7


def test_names_in_fixes_are_quoted() -> None:
    bad = {"role": 'o"dd', "database": "my db", "replication": False, "may_create": False}
    assert [finding.fix for finding in wrong(judge_server({**GOOD, **bad}, slot_exists=True))] == [
        'ALTER ROLE "o""dd" WITH REPLICATION;',
        'GRANT CREATE ON DATABASE "my db" TO "o""dd";',
    ]


@pytest.mark.parametrize(
    ("row", "read_by_us"),
    [
        (None, False),
        (SLOT, False),
        ({**SLOT, "active": True, "active_pid": 7}, True),
        ({**SLOT, "wal_status": "extended"}, False),
        ({**SLOT, "wal_status": None}, False),
    ],
)
def test_a_slot_that_is_ours_or_not_there_yet_is_good(row: dict[str, Any] | None, read_by_us: bool) -> None:
    assert wrong(judge_slot("cdc_shop", row, read_by_us=read_by_us)) == []


@pytest.mark.parametrize(
    ("change", "message", "fix"),
    [
        ({"plugin": "test_decoding"}, "test_decoding", "another slot name"),
        ({"plugin": None, "slot_type": "physical"}, "expected a logical slot of pgoutput", "another slot name"),
        ({"wal_status": "lost"}, "lost", "pg_drop_replication_slot('cdc_shop')"),
        ({"wal_status": "unreserved"}, "unreserved", "pg_drop_replication_slot('cdc_shop')"),
        ({"active": True, "active_pid": 4711}, "4711", "stop the other reader"),
    ],
)
def test_a_slot_that_cannot_be_read_is_an_error(change: dict[str, Any], message: str, fix: str) -> None:
    (finding,) = wrong(judge_slot("cdc_shop", {**SLOT, **change}, read_by_us=False))
    assert (finding.subject, finding.severity) == ("slot cdc_shop", ERROR)
    assert message in finding.message
    assert fix in finding.fix


def test_a_lost_slot_is_an_error_even_while_we_read_it() -> None:
    (finding,) = wrong(judge_slot("cdc_shop", {**SLOT, "wal_status": "lost", "active": True}, read_by_us=True))
    assert finding.severity is ERROR


def test_a_good_table_is_identified_by_its_key() -> None:
    (finding,) = judge_tables([table_of(ORDERS)], "cdc")
    assert (finding.severity, finding.message) == (OK, "identified by id")


@pytest.mark.parametrize(
    ("identity", "change", "severity", "fix"),
    [
        (
            RowIdentity.KEY,
            {"readable": False},
            ERROR,
            'GRANT USAGE ON SCHEMA "public" TO "cdc"; GRANT SELECT ON "public"."Orders" TO "cdc";',
        ),
        (RowIdentity.KEY, {"owned": False}, ERROR, 'GRANT "owner" TO "cdc";'),
        (RowIdentity.KEY, {"left_out": ("total",)}, WARNING, "compute them in a view"),
        (RowIdentity.APPEND, {}, WARNING, 'ALTER TABLE "public"."Orders" ADD PRIMARY KEY'),
        (RowIdentity.APPEND, {"key_deferrable": True}, WARNING, 'ALTER TABLE "public"."Orders"'),
        (RowIdentity.FULL_ROW, {}, WARNING, 'ALTER TABLE "public"."Orders" ADD PRIMARY KEY'),
    ],
)
def test_one_wrong_thing_about_a_table_is_its_only_finding(
    identity: RowIdentity, change: dict[str, Any], severity: Severity, fix: str
) -> None:
    (finding,) = wrong(judge_tables([table_of(ORDERS, identity, **change)], "cdc"))
    assert (finding.subject, finding.severity) == ("table public.Orders", severity)
    assert fix in finding.fix


def test_every_problem_of_every_table_is_found() -> None:
    worst = table_of(ORDERS, RowIdentity.APPEND, readable=False, owned=False, left_out=("total",))
    found = list(judge_tables([worst, table_of(TableId("public", "items"))], "cdc"))
    assert [finding.subject for finding in found] == ["table public.Orders"] * 4 + ["table public.items"]
    assert [finding.severity for finding in found] == [ERROR, ERROR, WARNING, WARNING, OK]
