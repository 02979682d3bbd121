"""What ``cdc check`` looks at on a PostgreSQL source: settings, privileges, slot and tables, each with its fix.

Reads only. Every judgement is a small function of what was read, to be tested without a server in that state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from cdc.contracts import Finding, Severity
from cdc.schema import RowIdentity
from connectors.postgres.catalog import CatalogTable

MINIMUM_VERSION = 130000

LOSSLESS_MINORS = {13: 21, 14: 18, 15: 13, 16: 9, 17: 5}
"""First minor release of each major in which a table that is added to a publication while transactions write to it
loses none of their later changes ("Fix data loss in logical replication", release notes of 2025-05-08)."""

LONG_TRANSACTION_SECONDS = 600

_SERVER = """
SELECT current_setting('server_version_num')::int AS version,
       current_setting('server_version') AS version_text,
       current_setting('wal_level') AS wal_level,
       current_setting('max_replication_slots')::int AS max_slots,
       (SELECT count(*) FROM pg_catalog.pg_replication_slots)::int AS slots,
       current_setting('max_wal_senders')::int AS max_senders,
       (SELECT count(*) FROM pg_catalog.pg_stat_replication)::int AS senders,
       current_setting('max_slot_wal_keep_size') AS keep_size,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('server_encoding') AS encoding,
       (SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout') AS sender_timeout_ms,
       pg_catalog.pg_is_in_recovery() AS standby,
       r.rolsuper AS superuser,
       r.rolreplication OR r.rolsuper OR EXISTS (SELECT 1 FROM pg_catalog.pg_roles g
         WHERE g.rolname = 'rds_replication' AND pg_catalog.pg_has_role(g.oid, 'MEMBER')) AS replication,
       pg_catalog.has_database_privilege(current_database(), 'CREATE') AS may_create,
       current_user AS role, current_database() AS database,
       COALESCE((SELECT max(EXTRACT(epoch FROM now() - xact_start)) FROM pg_catalog.pg_stat_activity
                  WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()), 0)::float8 AS oldest_transaction_seconds
  FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
"""

_SLOT = "SELECT * FROM pg_catalog.pg_replication_slots WHERE slot_name = %s"


def check_server(connection: psycopg.Connection, slot: str, application_name: str) -> list[Finding]:
    """Return the findings about the server, its privileges for us, and our slot."""
    cursor = connection.cursor(row_factory=dict_row)
    server = cursor.execute(_SERVER).fetchone() or {}
    found = cursor.execute(_SLOT, (slot,)).fetchone()
    reader = cursor.execute(
        "SELECT application_name FROM pg_catalog.pg_stat_activity WHERE pid = %s", (found and found["active_pid"],)
    ).fetchone()
    ours = reader is not None and reader["application_name"] == application_name
    return [*judge_server(server, slot_exists=found is not None), *judge_slot(slot, found, read_by_us=ours)]


def judge_server(server: Mapping[str, Any], *, slot_exists: bool) -> Iterator[Finding]:
    """Judge the settings and privileges in a row of ``_SERVER``."""
    yield from _judge_version(server)
    yield from _judge_capacity(server, slot_exists)
    yield from _judge_privileges(server)
    yield from _judge_safety(server)


def _judge_version(server: Mapping[str, Any]) -> Iterator[Finding]:
    version, major, minor = server["version"], server["version"] // 10000, server["version"] % 10000
    if version < MINIMUM_VERSION:
        yield _error("version", f"expected PostgreSQL 13 or later, got {server['version_text']}", "upgrade the server")
    elif minor < LOSSLESS_MINORS.get(major, 0):
        message = f"{server['version_text']} can lose changes of a table that is added while transactions write to it"
        yield _warning("version", message, f"update to {major}.{LOSSLESS_MINORS[major]} or later")
    else:
        yield _ok("version", f"PostgreSQL {server['version_text']}")
    if server["standby"]:
        message = "the server is a standby; publication and slot are made on the primary"
        yield _error("standby", message, "point the source's url at the primary")


def _judge_capacity(server: Mapping[str, Any], slot_exists: bool) -> Iterator[Finding]:
    if server["wal_level"] == "logical":
        yield _ok("wal_level", "logical")
    else:
        message = f"expected logical, got {server['wal_level']}"
        yield _error("wal_level", message, "ALTER SYSTEM SET wal_level = logical; -- then restart the server")
    if slot_exists or server["slots"] < server["max_slots"]:
        yield _ok("max_replication_slots", f"{server['slots']} of {server['max_slots']} in use")
    else:
        fix = f"ALTER SYSTEM SET max_replication_slots = {server['max_slots'] + 10}; -- then restart the server"
        yield _error("max_replication_slots", f"all {server['max_slots']} are in use", fix)
    if server["senders"] < server["max_senders"]:
        yield _ok("max_wal_senders", f"{server['senders']} of {server['max_senders']} in use")
    else:
        fix = f"ALTER SYSTEM SET max_wal_senders = {server['max_senders'] + 10}; -- then restart the server"
        yield _error("max_wal_senders", f"all {server['max_senders']} are in use", fix)


def _judge_privileges(server: Mapping[str, Any]) -> Iterator[Finding]:
    role = sql.Identifier(server["role"]).as_string()
    if server["replication"]:
        yield _ok("replication privilege", f"role {server['role']} may replicate")
    else:
        message = f"role {server['role']} may not replicate"
        yield _error("replication privilege", message, f"ALTER ROLE {role} WITH REPLICATION;")
    if server["may_create"]:
        yield _ok("publication privilege", f"role {server['role']} may create publications")
    else:
        database = sql.Identifier(server["database"]).as_string()
        message = f"role {server['role']} may not create a publication in database {server['database']}"
        yield _error("publication privilege", message, f"GRANT CREATE ON DATABASE {database} TO {role};")


def _judge_safety(server: Mapping[str, Any]) -> Iterator[Finding]:
    if server["keep_size"] == "-1":
        message = "no bound on the log kept for a slot: while nobody reads it, the source's disk fills"
        fix = "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf();"
        yield _warning("max_slot_wal_keep_size", message, fix)
    else:
        yield _ok("max_slot_wal_keep_size", str(server["keep_size"]))
    if server["synchronous_commit"] == "off":
        message = "commits reach the stream only when the WAL writer has flushed them: expect about 200 ms more lag"
        yield _warning(
            "synchronous_commit", message, "ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf();"
        )
    if server["encoding"] == "SQL_ASCII":
        message = "the database doesn't check its texts; one that isn't UTF-8 stops its table"
        yield _warning("server_encoding", message, "dump and restore the database with ENCODING 'UTF8'")
    if 0 < server["sender_timeout_ms"] < 10_000:
        message = f"{server['sender_timeout_ms']} ms is short: a pause of the network ends the stream"
        fix = "ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf();"
        yield _warning("wal_sender_timeout", message, fix)
    if server["oldest_transaction_seconds"] > LONG_TRANSACTION_SECONDS:
        minutes = server["oldest_transaction_seconds"] / 60
        message = f"a transaction has been open for {minutes:.0f} minutes: a new slot waits for it, and log is kept"
        fix = "SELECT pid, xact_start, state, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY 2;"
        yield _warning("long transaction", message, fix)


def judge_slot(slot: str, row: Mapping[str, Any] | None, *, read_by_us: bool) -> Iterator[Finding]:
    """Judge our slot's row of pg_replication_slots."""
    subject = f"slot {slot}"
    if row is None:
        yield _ok(subject, "doesn't exist yet; cdc run creates it")
        return
    drop = f"SELECT pg_drop_replication_slot({sql.Literal(slot).as_string()});"
    if row["plugin"] != "pgoutput" or row["slot_type"] != "logical":
        yield _error(
            subject, f"expected a logical slot of pgoutput, got one of {row['plugin']}", "set another slot name"
        )
    elif row["wal_status"] in {"lost", "unreserved"}:
        message = f"its log is {row['wal_status']}: changes that the lake lacks are gone, or about to be"
        yield _error(subject, message, f"cdc tables resync <source> --all   -- after {drop}")
    elif row["active"] and not read_by_us:
        message = f"is being read by process {row['active_pid']}"
        yield _error(subject, message, "stop the other reader, or give this source another slot name")
    else:
        yield _ok(subject, "being read by cdc" if row["active"] else "ready")


def judge_tables(tables: Iterable[CatalogTable], role: str) -> Iterator[Finding]:
    """Judge the selected tables: readable, ours to publish, identifiable, complete."""
    for table in tables:
        name = sql.Identifier(*table.schema.table).as_string()
        subject = f"table {table.schema.table}"
        problems = [*_judge_access(table, subject, name, role), *_judge_identity(table, subject, name)]
        if table.left_out:
            message = f"generated columns aren't sent before version 18 unless stored: {', '.join(table.left_out)}"
            problems.append(_warning(subject, message, "compute them in a view of the lake"))
        yield from problems or [_ok(subject, f"identified by {', '.join(table.schema.key) or 'its whole row'}")]


def _judge_access(table: CatalogTable, subject: str, name: str, role: str) -> Iterator[Finding]:
    if not table.readable:
        grantee = sql.Identifier(role).as_string()
        schema = sql.Identifier(table.schema.table.schema).as_string()
        fix = f"GRANT USAGE ON SCHEMA {schema} TO {grantee}; GRANT SELECT ON {name} TO {grantee};"
        yield _error(subject, f"role {role} may not read it", fix)
    if not table.owned:
        grantee = sql.Identifier(role).as_string()
        fix = f"GRANT {sql.Identifier(table.owner).as_string()} TO {grantee};"
        yield _error(subject, f"only its owner {table.owner} may add it to a publication", fix)


def _judge_identity(table: CatalogTable, subject: str, name: str) -> Iterator[Finding]:
    if table.schema.identity is RowIdentity.APPEND:
        why = "its primary key is deferrable" if table.key_deferrable else "it has no usable key"
        message = f"{why}: only its inserts and truncates are replicated, updates and deletes are not"
        yield _warning(subject, message, f"ALTER TABLE {name} ADD PRIMARY KEY (...); -- or: REPLICA IDENTITY FULL;")
    elif table.schema.identity is RowIdentity.FULL_ROW:
        message = "it has no key: each of its updates and deletes compares whole rows, which is slow for a large table"
        yield _warning(subject, message, f"ALTER TABLE {name} ADD PRIMARY KEY (...);")


def _ok(subject: str, message: str) -> Finding:
    return Finding(subject=subject, severity=Severity.OK, message=message)


def _warning(subject: str, message: str, fix: str) -> Finding:
    return Finding(subject=subject, severity=Severity.WARNING, message=message, fix=fix)


def _error(subject: str, message: str, fix: str) -> Finding:
    return Finding(subject=subject, severity=Severity.ERROR, message=message, fix=fix)
