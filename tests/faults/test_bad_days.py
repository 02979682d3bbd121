"""Bad days: each ends in a message that says what to do, loses nothing, and is healed by doing what it says."""

from __future__ import annotations

import json
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fix_engine import EngineHarness, MakeEngine, connected, until, value
from fix_postgres import MakeServer

from cdc.demo.server import PostgresServer
from connectors.postgres.replication import ReplicationConnection
from sinks.postgres import session as lake_session

pytestmark = pytest.mark.servers

LAUNCHER = Path(__file__).parent / "launcher.py"
Connection = psycopg.Connection[Any]

ITEMS = "CREATE TABLE item (id int PRIMARY KEY, note text); INSERT INTO item VALUES (1, 'one')"
OTHER = "CREATE TABLE other (id int PRIMARY KEY, note text)"


def set_constants(engine: EngineHarness, **constants: Any) -> None:
    """Start the engine with other constants from now on; ``module__NAME`` says which."""
    places = {
        "SLOT_WAIT_SECONDS": "connectors.postgres.source:SLOT_WAIT_SECONDS",
        "WRITERS_WAIT_SECONDS": "connectors.postgres.source:WRITERS_WAIT_SECONDS",
        "LAKE_SETTINGS": "sinks.postgres.session:_SETTINGS",
    }
    chosen = {places[name]: constant for name, constant in constants.items()}
    engine.launch_with(LAUNCHER, json.dumps({"set": chosen}))


def refuses_to_run(engine: EngineHarness, *words: str) -> None:
    """Start the engine and see it end with exit code 1, having said this."""
    before = len(engine.log)
    engine.start(ready=False)
    assert engine.end() == 1
    said = engine.log[before:]
    for word in words:
        assert word in said, said


def resync_all(engine: EngineHarness) -> None:
    done = engine.cdc("tables", "resync", engine.name, "--all", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr


# how the source is set up


def test_wal_level_that_is_not_logical(make_server: MakeServer, lake_dsn: str, make_engine: MakeEngine) -> None:
    server = make_server(settings={"wal_level": "replica"})
    engine = make_engine(server.dsn(), lake_dsn)
    with connected(server.dsn()) as source:
        source.execute(ITEMS)
    refuses_to_run(engine, "wal_level", "ALTER SYSTEM SET wal_level = logical")
    assert "ALTER SYSTEM SET wal_level = logical" in engine.cdc("check").stdout
    server.restart({"wal_level": "logical"})
    engine.start()
    with connected(server.dsn()) as source:
        source.execute("INSERT INTO item VALUES (2, 'two')")
    engine.wait_until_identical()


def test_no_free_replication_slot(make_server: MakeServer, lake_dsn: str, make_engine: MakeEngine) -> None:
    server = make_server(settings={"max_replication_slots": "1"})
    engine = make_engine(server.dsn(), lake_dsn)
    with connected(server.dsn()) as source:
        source.execute(ITEMS)
        source.execute("SELECT pg_create_physical_replication_slot('somebodys')")
        refuses_to_run(engine, "all replication slots are in use", "max_replication_slots")
        source.execute("SELECT pg_drop_replication_slot('somebodys')")
        engine.start()
        source.execute("INSERT INTO item VALUES (2, 'two')")
        engine.wait_until_identical()


def test_a_role_without_the_replication_privilege(
    source: Connection, source_dsn: str, lake_dsn: str, make_engine: MakeEngine
) -> None:
    source.execute("DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN")
    source.execute(ITEMS)
    engine = make_engine(source_dsn.replace("postgres@", "plain@"), lake_dsn)
    try:
        refuses_to_run(engine, "permission denied to start WAL sender", "WITH REPLICATION")
        mended = follow_the_fixes(engine, source)
        assert 'ALTER ROLE "plain" WITH REPLICATION;' in mended
        engine.source_options["url"] = engine.source_dsn
        engine.start()
        source.execute("INSERT INTO item VALUES (2, 'two')")
        engine.source_dsn = source_dsn
        engine.wait_until_identical()
        engine.stop()
    finally:
        source.execute("DROP PUBLICATION IF EXISTS cdc_shop, cdc_shop_inserts")
        source.execute("REASSIGN OWNED BY plain TO postgres; DROP OWNED BY plain; DROP ROLE plain")


def follow_the_fixes(engine: EngineHarness, source: Connection) -> list[str]:
    """Execute every fix of every error that ``cdc check`` finds at the source; afterwards it finds none."""
    found = json.loads(engine.cdc("check", "--json").stdout)
    fixes = [f["fix"] for f in found["findings"] if f["severity"] == "error"]
    assert all(fixes), found
    for fix in fixes:
        for statement in fix.split(";"):
            if statement.strip() and not statement.strip().startswith("--"):
                source.execute(statement.encode())
    again = json.loads(engine.cdc("check", "--json").stdout)
    assert again["errors"] == 0, again
    return fixes


def test_check_lists_every_problem_of_a_badly_configured_server_with_its_fix(
    make_server: MakeServer, lake_dsn: str, make_engine: MakeEngine
) -> None:
    bad = {"wal_level": "replica", "max_replication_slots": "1", "max_wal_senders": "1", "wal_sender_timeout": "2s"}
    server = make_server(settings=bad)
    with connected(server.dsn()) as root:
        root.execute("SELECT pg_create_physical_replication_slot('somebodys')")
        root.execute("CREATE ROLE plain LOGIN; CREATE ROLE owner; CREATE ROLE reader LOGIN REPLICATION")
        root.execute("CREATE TABLE secret (id int PRIMARY KEY); ALTER TABLE secret OWNER TO owner")
        root.execute("CREATE TABLE keyless (id int); ALTER TABLE keyless OWNER TO plain")
        root.execute("CREATE TABLE lazy (id int PRIMARY KEY DEFERRABLE); ALTER TABLE lazy OWNER TO plain")
        root.execute("CREATE TABLE whole (id int); ALTER TABLE whole REPLICA IDENTITY FULL, OWNER TO plain")
    engine = make_engine(server.dsn().replace("postgres@", "plain@"), lake_dsn, tables=["public.*", "misspelt.*"])
    checked = engine.cdc("check", "--json")
    assert checked.returncode == 1
    found = {(f["subject"], f["severity"]): f["fix"] for f in json.loads(checked.stdout)["findings"]}
    expected = {
        ("wal_level", "error"): "ALTER SYSTEM SET wal_level = logical",
        ("max_replication_slots", "error"): "ALTER SYSTEM SET max_replication_slots",
        ("replication privilege", "error"): "ALTER ROLE plain WITH REPLICATION;",
        ("publication privilege", "error"): "GRANT CREATE ON DATABASE postgres TO plain;",
        ("max_slot_wal_keep_size", "warning"): "ALTER SYSTEM SET max_slot_wal_keep_size",
        ("wal_sender_timeout", "warning"): "ALTER SYSTEM SET wal_sender_timeout",
        ("table public.keyless", "warning"): "ALTER TABLE public.keyless ADD PRIMARY KEY",
        ("table public.lazy", "warning"): "ALTER TABLE public.lazy ADD PRIMARY KEY",
        ("table public.whole", "warning"): "ALTER TABLE public.whole ADD PRIMARY KEY",
        ("pattern misspelt.*", "warning"): "check its spelling",
    }
    for subject, fix in expected.items():
        assert fix in found.get(subject, "").replace('"', ""), (subject, found)
    fixes = [f["fix"] for f in json.loads(checked.stdout)["findings"] if f["subject"] == "table public.secret"]
    assert any("GRANT SELECT ON" in fix for fix in fixes), fixes
    assert any("GRANT" in fix and "owner" in fix for fix in fixes), fixes
    assert "wal_level" in engine.cdc("check").stdout


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tabels": ["public.*"]}, ["sources.shop.tabels", "tables"]),
        ({"rpo": "30"}, ["sources.shop.rpo", "duration"]),
        ({"type": "postgras"}, ["sources.shop.type", "postgres"]),
        ({"url": "${NOT_SET_ANYWHERE}"}, ["NOT_SET_ANYWHERE"]),
        ({"tables": ["!public.item"]}, ["sources.shop.tables"]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_typo_in_the_configuration(engine: EngineHarness, change: dict[str, Any], words: list[str]) -> None:
    engine.source_options |= change
    engine.write_config()
    engine.process.start()
    assert engine.end() == 2
    for word in words:
        assert word in engine.log, engine.log
    assert "Traceback" not in engine.log


# slot and publication


def test_a_slot_that_another_reader_holds(engine: EngineHarness, source: Connection, source_dsn: str) -> None:
    source.execute(ITEMS)
    engine.start()
    engine.wait_until_identical()
    engine.stop()
    source.execute("INSERT INTO item VALUES (2, 'while it is stopped')")
    with closing(ReplicationConnection(source_dsn, application_name="another")) as reader:
        reader.start(engine.slot, 0, {"proto_version": "1", "publication_names": "cdc_shop"})
        set_constants(engine, SLOT_WAIT_SECONDS=0.5)
        refuses_to_run(engine, f'replication slot "{engine.slot}" is active', "stop the other reader")
        assert f"slot {engine.slot}: is being read by process" in engine.cdc("check").stdout
        # A reader that was killed a moment ago: the server hasn't noticed yet.
        engine.launch_as_usual()
        engine.process.start()
        until(lambda: engine.status().get("state") == "starting")
    engine.process.wait_until_ready(30)
    engine.wait_until_identical()


def test_two_engines_for_one_source(
    source: Connection, source_dsn: str, lake_dsn: str, make_engine: MakeEngine
) -> None:
    source.execute(ITEMS)
    first, second = make_engine(source_dsn, lake_dsn), make_engine(source_dsn, lake_dsn)
    first.start()
    first.wait_until_identical()
    set_constants(second, SLOT_WAIT_SECONDS=0.5)
    refuses_to_run(second, "is active", "stop the other reader")
    source.execute("INSERT INTO item VALUES (2, 'two')")
    first.wait_until_identical()
    assert first.stop() == 0


def test_a_second_lake_with_the_same_slot_is_refused(
    source: Connection, source_dsn: str, lake_dsn: str, lake_server: PostgresServer, make_engine: MakeEngine
) -> None:
    source.execute(ITEMS)
    first, second = make_engine(source_dsn, lake_dsn), make_engine(source_dsn, lake_server.dsn())
    first.start()
    first.wait_until_identical()
    try:
        refuses_to_run(second, "expected no slot of ours yet", "set other names with the source's keys slot")
    finally:
        with connected(lake_server.dsn()) as lake:
            lake.execute("DROP SCHEMA IF EXISTS cdc CASCADE")
    source.execute("INSERT INTO item VALUES (2, 'two')")
    first.wait_until_identical()


def test_a_slot_dropped_while_the_engine_is_stopped(
    engine: EngineHarness, source: Connection, lake: Connection
) -> None:
    source.execute(ITEMS)
    engine.start()
    engine.wait_until_identical()
    engine.stop()
    lake.execute("ALTER TABLE lake.item ADD COLUMN mine text; UPDATE lake.item SET mine = 'kept'")
    source.execute("SELECT pg_drop_replication_slot(%s)", [engine.slot])
    source.execute("INSERT INTO item VALUES (2, 'nobody listens')")
    refuses_to_run(engine, f"slot {engine.slot}: expected the log since", "cdc tables resync shop --all")
    assert value(lake, "SELECT count(*) FROM lake.item") == 1
    resync_all(engine)
    engine.start()
    engine.wait_until_identical()
    assert value(lake, "SELECT mine FROM lake.item WHERE id = 1") == "kept"


def test_a_slot_that_was_invalidated(make_server: MakeServer, lake_dsn: str, make_engine: MakeEngine) -> None:
    server = make_server(settings={"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB", "min_wal_size": "32MB"})
    engine = make_engine(server.dsn(), lake_dsn)
    with connected(server.dsn()) as source:
        source.execute(ITEMS)
        engine.start()
        engine.wait_until_identical()
        engine.stop()
        source.execute("INSERT INTO item VALUES (2, 'lost from the log')")
        status = "SELECT wal_status FROM pg_replication_slots"

        def lost() -> bool:
            source.execute("SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1000000))")
            source.execute("SELECT pg_switch_wal()")
            source.execute("CHECKPOINT")
            return value(source, status) == "lost"

        until(lost, what=lambda: str(value(source, status)))
        refuses_to_run(engine, f"slot {engine.slot}", "cdc tables resync shop --all")
        assert "its log is lost" in engine.cdc("check").stdout
        resync_all(engine)
        engine.start()
        source.execute("INSERT INTO item VALUES (3, 'three')")
        engine.wait_until_identical()


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "while it is stopped"])
@pytest.mark.all_versions
def test_a_dropped_publication(engine: EngineHarness, source: Connection, running: bool) -> None:
    source.execute(ITEMS)
    engine.start()
    engine.wait_until_identical()
    if not running:
        engine.stop()
    source.execute("DROP PUBLICATION cdc_shop")
    source.execute("INSERT INTO item VALUES (2, 'published nowhere')")
    if running:
        assert engine.end() == 1
    else:
        engine.start(ready=False)
        assert engine.end() == 1
    assert "publication" in engine.log
    assert "cdc tables resync" in engine.log
    resync_all(engine)
    engine.start()
    source.execute("INSERT INTO item VALUES (3, 'three')")
    engine.wait_until_identical()


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "while it is stopped"])
def test_a_table_taken_out_of_the_publication_is_copied_again(
    engine: EngineHarness, source: Connection, running: bool
) -> None:
    source.execute(ITEMS + "; " + OTHER)
    engine.start()
    engine.wait_until_identical()
    if not running:
        engine.stop()
    source.execute("ALTER PUBLICATION cdc_shop DROP TABLE item")
    source.execute("INSERT INTO item VALUES (2, 'not sent'); INSERT INTO other VALUES (1, 'sent')")
    if not running:
        engine.start()
    engine.wait_for_log("table public.item is copied again: it was taken out of the publication")
    engine.wait_for_state("item", "streaming")
    source.execute("INSERT INTO item VALUES (3, 'three'); UPDATE item SET note = 'changed' WHERE id = 1")
    engine.wait_until_identical()


def test_a_table_taken_out_and_put_back_while_the_engine_is_stopped(engine: EngineHarness, source: Connection) -> None:
    source.execute(ITEMS)
    engine.start()
    engine.wait_until_identical()
    engine.stop()
    source.execute("ALTER PUBLICATION cdc_shop DROP TABLE item")
    source.execute("INSERT INTO item VALUES (2, 'not sent')")
    source.execute("ALTER PUBLICATION cdc_shop ADD TABLE item")
    engine.start()
    engine.wait_until_identical()


# servers that go, come back, or are others


def test_another_server_behind_the_same_address(
    make_server: MakeServer, lake_dsn: str, make_engine: MakeEngine
) -> None:
    server, impostor = make_server(name="right"), make_server(name="wrong")
    engine = make_engine(server.dsn(), lake_dsn)
    for one in (server, impostor):
        with connected(one.dsn()) as source:
            source.execute(ITEMS)
    engine.start()
    engine.wait_until_identical()
    engine.stop()
    with connected(server.dsn()) as source:
        source.execute("INSERT INTO item VALUES (2, 'two')")
    for one in (server, impostor):
        one.stop()
    swap(server, impostor)
    server.start()
    refuses_to_run(engine, "expected the server with system identifier", "point the source's url back")
    server.stop()
    swap(server, impostor)
    server.start()
    engine.start()
    engine.wait_until_identical()


def swap(one: PostgresServer, other: PostgresServer) -> None:
    """Exchange two stopped servers' data."""
    aside = one.directory / "aside"
    one.data.rename(aside)
    other.data.rename(one.data)
    aside.rename(other.data)


def test_a_source_that_restarts_or_crashes(make_server: MakeServer, lake_dsn: str, make_engine: MakeEngine) -> None:
    server = make_server(settings={"fsync": "on", "full_page_writes": "on"})
    engine = make_engine(server.dsn(), lake_dsn)
    with connected(server.dsn()) as source:
        source.execute(ITEMS)
    engine.start()
    engine.wait_until_identical()
    for number, crash in enumerate((False, True, True), 2):
        with connected(server.dsn()) as source:
            source.execute("INSERT INTO item SELECT %s * 10000 + n, 'x' FROM generate_series(1, 5000) n", [number])
        if crash:
            server.kill()
        else:
            server.stop()
        engine.wait_for_source_state("retrying")
        assert "source: " in engine.status()["error"]
        server.start()
        with connected(server.dsn()) as source:
            source.execute("INSERT INTO item VALUES (%s, 'after it came back')", [number])
        engine.wait_until_identical()
    assert engine.stop() == 0


def test_a_lake_that_is_down_at_the_start_and_crashes_in_mid_stream(
    make_server: MakeServer, source: Connection, source_dsn: str, make_engine: MakeEngine
) -> None:
    server = make_server(name="lake", settings={"fsync": "on", "full_page_writes": "on"})
    engine = make_engine(source_dsn, server.dsn())
    source.execute(ITEMS)
    server.stop()
    engine.start(ready=False)
    engine.wait_for_source_state("retrying")
    assert "lake: " in engine.status()["error"]
    server.start()
    engine.wait_until_identical()
    for number, end in enumerate((server.kill, server.stop, server.kill), 2):
        source.execute("INSERT INTO item SELECT %s * 10000 + n, 'x' FROM generate_series(1, 8000) n", [number])
        end()
        source.execute("UPDATE item SET note = 'while the lake is down' WHERE id % 10 = 1")
        source.execute("INSERT INTO item VALUES (%s, 'small')", [number])
        engine.wait_for_source_state("retrying")
        server.start()
        engine.wait_until_identical()
    assert "the lake takes changes again" in engine.log
    assert engine.stop() == 0


def test_a_lake_table_that_a_user_holds_locked(engine: EngineHarness, source: Connection, lake_dsn: str) -> None:
    source.execute(ITEMS)
    short = lake_session._SETTINGS.replace("lock_timeout = '30s'", "lock_timeout = '300ms'")
    set_constants(engine, LAKE_SETTINGS=short)
    engine.start()
    engine.wait_until_identical()
    with connected(lake_dsn) as user, user.transaction():
        user.execute("LOCK TABLE lake.item IN ACCESS EXCLUSIVE MODE")
        source.execute("INSERT INTO item VALUES (2, 'two')")
        engine.wait_for_source_state("retrying")
        assert "LockNotAvailable" in engine.status()["error"]
        source.execute("UPDATE item SET note = 'changed'")
        until(lambda: engine.status()["lag_seconds"] > 0.5)
    engine.wait_until_identical()
    until(lambda: engine.status()["state"] == "streaming" and engine.status()["lag_seconds"] == 0)


def test_a_short_sender_timeout_does_not_break_a_blocked_apply(
    make_server: MakeServer, lake_dsn: str, make_engine: MakeEngine
) -> None:
    server = make_server(settings={"wal_sender_timeout": "2s"})
    engine = make_engine(server.dsn(), lake_dsn)
    with connected(server.dsn()) as source, connected(lake_dsn) as user:
        source.execute(ITEMS)
        engine.start()
        engine.wait_until_identical()
        walsender = "SELECT pid FROM pg_stat_replication WHERE application_name = 'cdc:shop' AND state = 'streaming'"
        before = value(source, walsender)
        with user.transaction():
            user.execute("LOCK TABLE lake.item IN ACCESS EXCLUSIVE MODE")
            for n in range(2, 40):
                source.execute("INSERT INTO item VALUES (%s, repeat('x', 100000))", [n])
            until(lambda: engine.status()["lag_seconds"] > 5)
        engine.wait_until_identical()
        assert value(source, walsender) == before


def test_a_quiet_source_on_a_busy_server_lets_go_of_its_log(engine: EngineHarness, source: Connection) -> None:
    source.execute(ITEMS)
    source.execute("CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.busy (id serial PRIMARY KEY, note text)")
    engine.start()
    engine.wait_until_identical()
    source.execute("INSERT INTO elsewhere.busy (note) SELECT 'not selected' FROM generate_series(1, 50000)")
    engine.wait_until_durable(timeout=10)
    assert engine.status()["lag_seconds"] == 0
    moved = "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = %s"
    before = value(source, moved, [engine.slot])

    def released() -> bool:
        source.execute("CHECKPOINT")
        return bool(value(source, moved, [engine.slot]) != before)

    until(released)
    engine.kill()
    source.execute("INSERT INTO item VALUES (2, 'after the quiet')")
    engine.start()
    engine.wait_until_identical()


def test_commits_that_are_not_flushed_yet_arrive_all_the_same(
    make_server: MakeServer, lake_dsn: str, make_engine: MakeEngine
) -> None:
    server = make_server(settings={"synchronous_commit": "off", "wal_writer_delay": "200ms"})
    engine = make_engine(server.dsn(), lake_dsn)
    with connected(server.dsn()) as source:
        source.execute(ITEMS)
        engine.start()
        for n in range(2, 300):
            source.execute("INSERT INTO item VALUES (%s, 'x')", [n])
            source.execute("UPDATE item SET note = 'y' WHERE id = %s", [n // 2])
        engine.wait_until_identical()
        assert "about 200 ms more lag" in engine.cdc("check").stdout


# bugs


@pytest.mark.parametrize("place", ["Source.prepare", "Assembler.feed", "Stages.apply"])
def test_a_bug_in_any_thread_ends_the_engine_instead_of_leaving_it_idle(
    engine: EngineHarness, source: Connection, place: str
) -> None:
    source.execute(ITEMS)
    engine.tolerates_bugs = True
    engine.launch_with(LAUNCHER, json.dumps({"break": place}))
    engine.process.start()
    source.execute("INSERT INTO item VALUES (2, 'two')")
    until(lambda: "ZeroDivisionError" in engine.log or update(source))
    assert engine.end() == 1
    engine.launch_as_usual()
    engine.start()
    engine.wait_until_identical()


def update(source: Connection) -> None:
    source.execute("UPDATE item SET note = 'changed'")


def test_a_bug_in_a_copy_stops_its_table_alone(engine: EngineHarness, source: Connection) -> None:
    source.execute(ITEMS)
    engine.tolerates_bugs = True
    engine.launch_with(LAUNCHER, json.dumps({"break": "copy_table"}))
    engine.start()
    assert "ZeroDivisionError" in engine.wait_for_state("item", "failed")["reason"]
    source.execute("INSERT INTO item VALUES (2, 'two')")
    engine.wait_until_durable()
    engine.stop()
    engine.launch_as_usual()
    engine.start()
    engine.wait_until_identical()


# what the lake refuses


def test_a_lake_without_room_is_waited_for(engine: EngineHarness, source: Connection, lake: Connection) -> None:
    source.execute(ITEMS)
    engine.start()
    engine.wait_until_identical()
    body = "BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END"
    lake.execute(f"CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $${body}$$".encode())
    trigger = "CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON lake.item"
    lake.execute(f"{trigger} FOR EACH ROW EXECUTE FUNCTION full_disk()".encode())
    source.execute("INSERT INTO item VALUES (2, 'two')")
    found = engine.wait_for_source_state("retrying")
    assert "DiskFull" in found["error"]
    source.execute("INSERT INTO item SELECT n, 'x' FROM generate_series(10, 3000) n")
    assert engine.table("item")["state"] == "streaming"
    lake.execute("DROP TRIGGER full_disk ON lake.item")
    engine.wait_until_identical()


@pytest.mark.parametrize("rows", [1, 500], ids=["a small group", "a large group"])
def test_a_users_constraint_stops_its_table_alone_and_is_named(
    engine: EngineHarness, source: Connection, lake: Connection, rows: int
) -> None:
    source.execute(ITEMS + "; " + OTHER)
    engine.start()
    engine.wait_until_identical()
    lake.execute("ALTER TABLE lake.item ADD CONSTRAINT short_notes CHECK (length(note) < 10)")
    with source.transaction():
        source.execute("INSERT INTO item SELECT n + 1, 'canary7391' FROM generate_series(1, %s::int) n", [rows])
        source.execute("INSERT INTO other SELECT n, 'goes on' FROM generate_series(1, %s::int) n", [rows])
    found = engine.wait_for_state("item", "failed")
    assert "short_notes" in found["reason"]
    assert "canary7391" not in engine.log + json.dumps(engine.status())
    source.execute("INSERT INTO other VALUES (100000, 'later')")
    engine.wait_until_identical(["other"])
    assert value(lake, "SELECT count(*) FROM lake.item") == 1
    engine.restart()
    assert "short_notes" in engine.wait_for_state("item", "failed")["reason"]
    assert "short_notes" in engine.cdc("tables", "list").stdout
    lake.execute("ALTER TABLE lake.item DROP CONSTRAINT short_notes")
    engine.restart()
    engine.wait_until_identical()


def test_what_users_made_in_the_lake_survives(engine: EngineHarness, source: Connection, lake: Connection) -> None:
    source.execute(ITEMS)
    source.execute("INSERT INTO item SELECT n, 'x' FROM generate_series(2, 100) n")
    engine.start()
    engine.wait_until_identical()
    lake.execute("ALTER TABLE lake.item ADD COLUMN mine text DEFAULT 'default', ADD COLUMN seen int DEFAULT 0")
    lake.execute("CREATE INDEX by_mine ON lake.item (mine); CREATE VIEW lake.mine AS SELECT id, mine FROM lake.item")
    body = "BEGIN NEW.seen := coalesce(OLD.seen, 0) + 1; RETURN NEW; END"
    lake.execute(f"CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $${body}$$".encode())
    lake.execute("CREATE TRIGGER look BEFORE UPDATE ON lake.item FOR EACH ROW EXECUTE FUNCTION look()")
    lake.execute("DROP ROLE IF EXISTS analyst; CREATE ROLE analyst; GRANT SELECT ON lake.item, lake.mine TO analyst")
    try:
        lake.execute("UPDATE lake.item SET mine = 'enriched ' || id")
        source.execute("UPDATE item SET note = 'small group' WHERE id = 3")
        source.execute("UPDATE item SET note = 'large group' WHERE id > 10; DELETE FROM item WHERE id > 90")
        source.execute("UPDATE item SET id = -5 WHERE id = 5; UPDATE item SET id = id + 2000 WHERE id > 50")
        engine.wait_until_identical()
        kept = "SELECT count(*) FROM lake.item WHERE mine LIKE 'enriched %'"
        assert value(lake, kept) == value(source, "SELECT count(*) FROM item")
        assert value(lake, "SELECT mine FROM lake.item WHERE id = -5") == "enriched 5"
        assert value(lake, "SELECT seen FROM lake.item WHERE id = 3") == 2
        engine.stop()
        resync_all(engine)
        source.execute("INSERT INTO item VALUES (7000, 'new'); DELETE FROM item WHERE id = 2")
        engine.start()
        engine.wait_until_identical()
        assert value(lake, kept) == value(source, "SELECT count(*) - 1 FROM item")
        assert value(lake, "SELECT mine FROM lake.mine WHERE id = 7000") == "default"
        assert value(lake, "SELECT has_table_privilege('analyst', 'lake.item', 'SELECT')")
        assert value(lake, "SELECT indexdef FROM pg_indexes WHERE indexname = 'by_mine'")
    finally:
        lake.execute("DROP OWNED BY analyst; DROP ROLE analyst")


def test_tables_of_the_lakes_users_are_never_taken_over(
    engine: EngineHarness, source: Connection, lake: Connection
) -> None:
    source.execute(ITEMS + "; " + OTHER)
    lake.execute("CREATE SCHEMA lake; CREATE TABLE lake.item (id int PRIMARY KEY, note text)")
    lake.execute("INSERT INTO lake.item VALUES (77, 'precious')")
    engine.start()
    found = engine.wait_for_state("item", "failed")
    assert "expected none or our copy, got a table of its own: rename it" in found["reason"]
    source.execute("INSERT INTO other VALUES (1, 'goes on'); INSERT INTO item VALUES (2, 'two')")
    engine.wait_until_identical(["other"])
    assert value(lake, "SELECT note FROM lake.item") == "precious"
    lake.execute("ALTER TABLE lake.item RENAME TO item_of_mine")
    engine.restart()
    engine.wait_until_identical()


# long transactions, and stopping


def test_a_new_table_whose_writer_takes_long_holds_nothing_up_for_good(
    engine: EngineHarness, source: Connection, source_dsn: str
) -> None:
    source.execute(ITEMS)
    set_constants(engine, WRITERS_WAIT_SECONDS=0.3)
    engine.start()
    engine.wait_until_identical()
    with connected(source_dsn) as earlier:
        source.execute(OTHER)
        earlier.execute("BEGIN")
        earlier.execute("INSERT INTO other VALUES (-1, 'from before the publication')")
        engine.wait_for_log("may have written to it before it was published")
        source.execute("INSERT INTO item VALUES (2, 'not held up')")
        engine.wait_until_identical(["item"])
        source.execute("INSERT INTO other VALUES (1, 'from after the publication')")
        earlier.execute("UPDATE other SET note = 'changed' WHERE id = -1")
        earlier.execute("COMMIT")
    engine.wait_until_identical()


def stops_in_time(engine: EngineHarness) -> None:
    started = time.monotonic()
    assert engine.stop() == 0
    assert time.monotonic() - started < 5.5
    assert "stopped" in engine.tail(3)


def test_sigterm_ends_an_idle_engine_at_once(engine: EngineHarness, source: Connection) -> None:
    source.execute(ITEMS)
    engine.start()
    engine.wait_until_identical()
    started = time.monotonic()
    assert engine.stop() == 0
    assert time.monotonic() - started < 2.5
    engine.start()
    assert engine.end(lambda process: process.send_signal(signal.SIGINT)) == 0


def test_sigterm_ends_an_engine_in_the_middle_of_a_copy(
    engine: EngineHarness, source: Connection, lake_dsn: str
) -> None:
    source.execute(ITEMS)
    engine.start()
    engine.wait_until_identical()
    engine.stop()
    source.execute("INSERT INTO item SELECT n, repeat('x', 200) FROM generate_series(10, 200000) n")
    resync_all(engine)
    with connected(lake_dsn) as user, user.transaction():
        user.execute("LOCK TABLE lake.item IN EXCLUSIVE MODE")  # the copy can read it, and waits to write it
        engine.start()
        engine.wait_for_state("item", "copying")
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'lake.item'::regclass"
        with connected(lake_dsn) as watcher:
            until(lambda: value(watcher, waiting))
        stops_in_time(engine)
    engine.start()
    engine.wait_until_identical()


def test_sigterm_ends_an_engine_in_the_middle_of_a_large_transaction(
    engine: EngineHarness, source: Connection, lake_dsn: str
) -> None:
    source.execute(ITEMS)
    engine.start()
    engine.wait_until_identical()
    with connected(lake_dsn) as user, user.transaction():
        user.execute("LOCK TABLE lake.item IN EXCLUSIVE MODE")
        source.execute("INSERT INTO item SELECT n, repeat('x', 200) FROM generate_series(10, 200000) n")
        source.execute("INSERT INTO item VALUES (2, 'waits behind it')")
        until(lambda: engine.status()["lag_seconds"] > 1)
        stops_in_time(engine)
    engine.start()
    engine.wait_until_identical(timeout=60)
