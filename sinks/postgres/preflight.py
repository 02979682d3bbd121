"""Looks at everything about the lake that could keep a copy from being made or from being durable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from cdc.contracts import Finding, Severity
from sinks.postgres.sql import identifier

MIN_VERSION = 140_000
"""Multiranges arrived in 14, and older servers are no longer maintained."""

_FACTS = """
SELECT current_database() AS database,
       current_user AS role,
       current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS version_number,
       pg_is_in_recovery() AS in_recovery,
       current_setting('default_transaction_read_only')::bool AS read_only,
       current_setting('server_encoding') AS encoding,
       current_setting('fsync')::bool AND current_setting('full_page_writes')::bool AS survives_crashes,
       has_database_privilege(current_database(), 'CREATE') AS may_create,
       has_database_privilege(current_database(), 'TEMPORARY') AS may_stage
"""


def findings(connection: psycopg.Connection) -> Sequence[Finding]:
    """Return what was looked at, each once; changes nothing."""
    cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
    return [
        finding
        for facts in cursor.execute(_FACTS)
        for finding in (_version(facts), _writable(facts), _encoding(facts), *_privileges(facts), _durability(facts))
    ]


def _version(facts: dict[str, Any]) -> Finding:
    if facts["version_number"] >= MIN_VERSION:
        return _ok("lake version", f"PostgreSQL {facts['version']}")
    return Finding(
        subject="lake version",
        severity=Severity.ERROR,
        message=f"expected PostgreSQL 14 or newer, got {facts['version']}",
        fix="upgrade the lake's server",
    )


def _writable(facts: dict[str, Any]) -> Finding:
    subject = "lake writable"
    if facts["in_recovery"]:
        message = "expected a primary, got a standby, which can't be written to"
        return Finding(subject=subject, severity=Severity.ERROR, message=message, fix="point lake.url to the primary")
    if facts["read_only"]:
        fix = f"ALTER ROLE {identifier(facts['role'])} SET default_transaction_read_only = off"
        message = "expected a session that may write, got default_transaction_read_only"
        return Finding(subject=subject, severity=Severity.ERROR, message=message, fix=fix)
    return _ok(subject, "a primary, and sessions may write")


def _encoding(facts: dict[str, Any]) -> Finding:
    if facts["encoding"] == "UTF8":
        return _ok("lake encoding", "UTF8")
    return Finding(
        subject="lake encoding",
        severity=Severity.ERROR,
        message=f"expected UTF8, got {facts['encoding']}, which lacks characters that sources may send",
        fix=f"CREATE DATABASE {identifier(facts['database'] + '_utf8')} ENCODING 'UTF8' TEMPLATE template0",
    )


def _privileges(facts: dict[str, Any]) -> list[Finding]:
    made = []
    for privilege, has, purpose in (
        ("CREATE", facts["may_create"], "make schemas for copies"),
        ("TEMPORARY", facts["may_stage"], "stage changes"),
    ):
        subject = f"lake privilege {privilege}"
        if has:
            made.append(_ok(subject, f"role {facts['role']} may {purpose}"))
            continue
        grant = f"GRANT {privilege} ON DATABASE {identifier(facts['database'])} TO {identifier(facts['role'])}"
        message = f"role {facts['role']} may not {purpose}"
        made.append(Finding(subject=subject, severity=Severity.ERROR, message=message, fix=grant))
    return made


def _durability(facts: dict[str, Any]) -> Finding:
    if facts["survives_crashes"]:
        return _ok("lake durability", "fsync and full_page_writes are on")
    return Finding(
        subject="lake durability",
        severity=Severity.WARNING,
        message="fsync or full_page_writes is off: what is called durable may be lost with the machine's power",
        fix="ALTER SYSTEM SET fsync = on; ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf()",
    )


def _ok(subject: str, message: str) -> Finding:
    return Finding(subject=subject, severity=Severity.OK, message=message)
