"""From a real source to a real lake: what applications do to tables, and that the lake holds the same afterwards."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from fix_engine import EngineHarness, MakeEngine, connected, until, value
from psycopg import sql

pytestmark = pytest.mark.servers

Connection = psycopg.Connection[Any]

LARGE = "large" * 4000
"""20 kB that don't go into a row."""


def toasted(source: Connection, table: str, *columns: str) -> None:
    """Make these columns keep large values out of line and uncompressed."""
    for column in columns:
        source.execute(f"ALTER TABLE {table} ALTER {column} SET STORAGE EXTERNAL".encode())


# rows and transactions


@pytest.mark.all_versions
def test_rows_from_before_and_after_the_start_arrive(engine: EngineHarness, source: Connection) -> None:
    source.execute("CREATE TABLE item (id int PRIMARY KEY, note text)")
    source.execute("INSERT INTO item SELECT n, 'before ' || n FROM generate_series(1, 1000) n")
    engine.start()
    source.execute("INSERT INTO item SELECT n, 'after ' || n FROM generate_series(1001, 1500) n")
    source.execute("UPDATE item SET note = 'changed' WHERE id % 3 = 0")
    source.execute("DELETE FROM item WHERE id % 7 = 0")
    engine.wait_until_identical()
    assert engine.stop() == 0


@pytest.mark.all_versions
def test_keys_that_move_arrive(engine: EngineHarness, source: Connection) -> None:
    source.execute("CREATE TABLE item (id int PRIMARY KEY, note text)")
    source.execute("CREATE TABLE swap (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, note text)")
    source.execute("ALTER TABLE swap REPLICA IDENTITY FULL")
    source.execute("INSERT INTO item SELECT n, 'row ' || n FROM generate_series(1, 200) n")
    source.execute("INSERT INTO swap SELECT n, 'row ' || n FROM generate_series(1, 200) n")
    engine.start()
    source.execute("UPDATE item SET id = id + 1000 WHERE id <= 50")
    with source.transaction():  # a key is left, taken by another row, and the first returns elsewhere
        source.execute("UPDATE item SET id = -1 WHERE id = 100")
        source.execute("UPDATE item SET id = 100 WHERE id = 101")
        source.execute("UPDATE item SET id = 101, note = 'swapped' WHERE id = -1")
    source.execute("UPDATE item SET id = 5000 WHERE id = 102; UPDATE item SET id = 102 WHERE id = 5000")
    source.execute("UPDATE swap SET id = id + 1")
    with source.transaction():
        source.execute("UPDATE swap SET id = 11 - id WHERE id IN (5, 6)")
        source.execute("UPDATE swap SET id = 201 - id WHERE id BETWEEN 100 AND 101")
    with source.transaction():
        source.execute("DELETE FROM swap WHERE id = 20")
        source.execute("UPDATE swap SET id = 20, note = 'took it' WHERE id = 21")
        source.execute("INSERT INTO swap VALUES (21, 'new')")
    source.execute("UPDATE swap SET id = id + 1 WHERE id > 150")
    engine.wait_until_identical()


@pytest.mark.all_versions
def test_transactions_over_many_tables_arrive_whole_or_not_at_all(
    engine: EngineHarness, source: Connection, lake: Connection, source_dsn: str
) -> None:
    source.execute("CREATE TABLE account (id int PRIMARY KEY, balance int)")
    source.execute("CREATE TABLE transfer (id serial PRIMARY KEY, amount int)")
    source.execute("INSERT INTO account VALUES (1, 0), (2, 0)")
    engine.start()
    engine.wait_until_identical()
    check = "SELECT (SELECT sum(balance) FROM lake.account), (SELECT sum(amount) FROM lake.transfer), count(*)"
    seen = []
    with connected(source_dsn) as other:
        for n in range(1, 120):
            with other.transaction():
                other.execute("UPDATE account SET balance = balance - %s WHERE id = 1", [n])
                other.execute("INSERT INTO transfer (amount) VALUES (%s)", [n])
                other.execute("UPDATE account SET balance = balance + %s WHERE id = 2", [n])
            if n % 4 == 0:
                seen.append(lake.execute(f"{check} FROM lake.transfer".encode()).fetchone())
            if n % 10 == 0:
                with other.transaction(force_rollback=True):
                    other.execute("UPDATE account SET balance = 10 ^ 6")
    engine.wait_until_identical()
    assert {row[0] for row in seen if row} == {0}


@pytest.mark.all_versions
def test_what_was_rolled_back_never_arrives(engine: EngineHarness, source: Connection) -> None:
    source.execute("CREATE TABLE item (id int PRIMARY KEY, note text)")
    engine.start()
    with source.transaction(force_rollback=True):
        source.execute("INSERT INTO item VALUES (1, 'rolled back')")
    with source.transaction():
        source.execute("INSERT INTO item VALUES (2, 'kept')")
        source.execute("SAVEPOINT one")
        source.execute("INSERT INTO item VALUES (3, 'rolled back to a savepoint')")
        source.execute("UPDATE item SET note = 'lost' WHERE id = 2")
        source.execute("SAVEPOINT two")
        source.execute("DELETE FROM item WHERE id = 2")
        source.execute("ROLLBACK TO SAVEPOINT one")
        source.execute("INSERT INTO item VALUES (3, 'the second one')")
        source.execute("SAVEPOINT three")
        source.execute("INSERT INTO item VALUES (4, 'released')")
        source.execute("RELEASE SAVEPOINT three")
    engine.wait_until_identical()


@pytest.mark.all_versions
def test_truncates_arrive_in_their_place(engine: EngineHarness, source: Connection) -> None:
    source.execute("CREATE TABLE parent (id serial PRIMARY KEY, note text)")
    source.execute("CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent)")
    source.execute("CREATE TABLE alone (id int PRIMARY KEY)")
    source.execute("CREATE TABLE keyless (n int)")
    fill = "INSERT INTO parent (note) SELECT 'x' FROM generate_series(1, 20)"
    source.execute(f"{fill}; INSERT INTO child SELECT n, n FROM generate_series(1, 20) n")
    source.execute("INSERT INTO alone VALUES (1), (2); INSERT INTO keyless VALUES (1), (1), (2)")
    engine.start()
    engine.wait_until_identical()
    with source.transaction():
        source.execute("INSERT INTO parent (note) VALUES ('gone in a moment')")
        source.execute("TRUNCATE parent RESTART IDENTITY CASCADE")
        source.execute("INSERT INTO parent (note) VALUES ('first again')")
        source.execute("INSERT INTO child VALUES (1, 1)")
    source.execute("TRUNCATE alone, keyless; INSERT INTO alone VALUES (2), (3); INSERT INTO keyless VALUES (7), (7)")
    with source.transaction(force_rollback=True):
        source.execute("TRUNCATE alone")
    with source.transaction():
        source.execute("UPDATE alone SET id = 9 WHERE id = 3")
        source.execute("TRUNCATE alone")
    engine.wait_until_identical()


# identities


@pytest.mark.all_versions
def test_every_replica_identity_is_followed(engine: EngineHarness, source: Connection, lake: Connection) -> None:
    source.execute("CREATE TABLE by_default (id int PRIMARY KEY, note text)")
    source.execute("CREATE TABLE by_index (id int PRIMARY KEY, code text NOT NULL, note text)")
    source.execute("CREATE UNIQUE INDEX by_index_code ON by_index (code)")
    source.execute("ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code")
    source.execute("CREATE TABLE full_keyed (id int PRIMARY KEY, note text)")
    source.execute("ALTER TABLE full_keyed REPLICA IDENTITY FULL")
    source.execute("CREATE TABLE full_bag (id int, note text)")
    source.execute("ALTER TABLE full_bag REPLICA IDENTITY FULL")
    source.execute("CREATE TABLE append_only (id int, note text)")
    source.execute("CREATE TABLE nothing (id int PRIMARY KEY, note text)")
    source.execute("ALTER TABLE nothing REPLICA IDENTITY NOTHING")
    keyed = ["by_default", "by_index", "full_keyed", "full_bag"]
    for table in keyed:
        code = ", code" if table == "by_index" else ""
        number = ", n::text" if code else ""
        source.execute(
            f"INSERT INTO {table} (id{code}, note) SELECT n{number}, 'x' FROM generate_series(1, 50) n".encode()
        )
    source.execute("INSERT INTO append_only VALUES (1, 'a'), (1, 'a')")
    source.execute("INSERT INTO nothing VALUES (1, 'a')")
    engine.start()
    for table in keyed:
        source.execute(f"UPDATE {table} SET note = 'y' WHERE id % 2 = 0".encode())
        source.execute(f"UPDATE {table} SET id = id + 100, note = NULL WHERE id % 5 = 0".encode())
        source.execute(f"DELETE FROM {table} WHERE id % 7 = 0".encode())
    source.execute("UPDATE by_index SET code = 'moved ' || code WHERE id % 3 = 0")
    for n in range(3):
        source.execute("INSERT INTO append_only VALUES (%s, 'b'), (%s, 'b')", [n, n])
    source.execute("INSERT INTO nothing VALUES (2, 'b')")
    engine.wait_until_identical()
    # What can't be followed must not hinder the application either.
    source.execute("UPDATE append_only SET note = 'c'; DELETE FROM nothing WHERE id = 1")
    source.execute("INSERT INTO append_only VALUES (9, NULL)")
    engine.wait_until_identical(keyed)
    engine.wait_until_durable()
    assert value(lake, "SELECT count(*) FROM lake.append_only") == value(source, "SELECT count(*) FROM append_only")
    checked = engine.cdc("check").stdout
    assert "table public.append_only: it has no usable key" in checked
    assert "ADD PRIMARY KEY" in checked


@pytest.mark.all_versions
def test_equal_rows_without_a_key_are_deleted_and_updated_one_by_one(
    engine: EngineHarness, source: Connection, lake: Connection
) -> None:
    source.execute("CREATE TABLE bag (n int, note text, amount numeric, big text)")
    source.execute("ALTER TABLE bag REPLICA IDENTITY FULL")
    toasted(source, "bag", "big")
    for _ in range(5):
        source.execute("INSERT INTO bag VALUES (1, 'same', 1.10, NULL), (2, NULL, NULL, %s)", [LARGE])
    engine.start()
    engine.wait_until_identical()
    one = "ctid = (SELECT min(ctid) FROM bag WHERE n = %s)"
    source.execute(f"DELETE FROM bag WHERE {one}".encode(), [1])
    source.execute(f"UPDATE bag SET note = 'other' WHERE {one}".encode(), [1])
    source.execute(f"UPDATE bag SET note = 'touched' WHERE {one}".encode(), [2])
    with source.transaction():
        source.execute(f"DELETE FROM bag WHERE {one}".encode(), [2])
        source.execute("INSERT INTO bag VALUES (1, 'same', 1.10, NULL)")
        source.execute(f"UPDATE bag SET n = 3 WHERE {one}".encode(), [2])
        source.execute("UPDATE bag SET amount = 1.1 WHERE n = 3")
        source.execute("DELETE FROM bag WHERE n = 3")
    engine.wait_until_identical()
    assert value(lake, "SELECT count(*) FROM lake.bag") == 8


@pytest.mark.all_versions
def test_large_values_that_an_update_leaves_alone_stay(engine: EngineHarness, source: Connection) -> None:
    for table, identity in (("item", "DEFAULT"), ("whole", "FULL")):
        source.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, n int, big text, more text)".encode())
        source.execute(f"ALTER TABLE {table} REPLICA IDENTITY {identity}".encode())
        toasted(source, table, "big", "more")
        source.execute(
            f"INSERT INTO {table} SELECT n, 0, repeat(n::text, 9000), repeat('m', 9000)"
            " FROM generate_series(1, 30) n".encode()
        )
    engine.start()
    engine.wait_until_identical()
    for table in ("item", "whole"):
        source.execute(f"UPDATE {table} SET n = 1 WHERE id <= 20".encode())
        source.execute(f"UPDATE {table} SET id = id + 100 WHERE id BETWEEN 5 AND 8".encode())
        with source.transaction():
            for change in ("n = 2", "big = 'small now'", "n = 3", "id = 201", "n = 4", "more = NULL", "id = 202"):
                where = {"n = 4": "id = 201", "more = NULL": "id = 201", "id = 202": "id = 201"}.get(change, "id = 1")
                source.execute(f"UPDATE {table} SET {change} WHERE {where}".encode())
        with source.transaction():  # leaves big alone, and is followed by one that writes it
            source.execute(f"UPDATE {table} SET n = 5 WHERE id = 10".encode())
            source.execute(f"UPDATE {table} SET big = repeat('new', 5000) WHERE id = 10".encode())
            source.execute(f"UPDATE {table} SET n = 6 WHERE id = 10".encode())
        with source.transaction():
            source.execute(f"INSERT INTO {table} VALUES (300, 1, repeat('i', 9000), repeat('j', 9000))".encode())
            source.execute(f"UPDATE {table} SET n = 2 WHERE id = 300".encode())
            source.execute(f"UPDATE {table} SET id = 301 WHERE id = 300".encode())
        with source.transaction():  # another row takes the key of one that moved away with its large values
            source.execute(f"UPDATE {table} SET id = 400 WHERE id = 15".encode())
            source.execute(f"UPDATE {table} SET id = 15, n = 7 WHERE id = 16".encode())
            source.execute(f"DELETE FROM {table} WHERE id = 17".encode())
            source.execute(f"INSERT INTO {table} (id, n) VALUES (17, 8)".encode())
            source.execute(f"UPDATE {table} SET n = 9 WHERE id = 17".encode())
    engine.wait_until_identical()


# shapes of tables


@pytest.mark.all_versions
def test_partitioned_tables_arrive_through_their_root(
    engine: EngineHarness, source: Connection, lake: Connection
) -> None:
    source.execute("CREATE TABLE event (id int, day date, note text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)")
    for year in (2023, 2024):
        source.execute(
            f"CREATE TABLE event_{year} PARTITION OF event"
            f" FOR VALUES FROM ('{year}-01-01') TO ('{year + 1}-01-01')".encode()
        )
    source.execute("CREATE TABLE event_rest (note text, day date NOT NULL, id int NOT NULL)")
    source.execute("ALTER TABLE event ATTACH PARTITION event_rest DEFAULT")
    source.execute("INSERT INTO event SELECT n, '2023-06-01', 'before' FROM generate_series(1, 20) n")
    engine.start()
    source.execute("INSERT INTO event SELECT n, date '2023-12-20' + n, 'after' FROM generate_series(21, 60) n")
    source.execute("INSERT INTO event VALUES (99, '2030-01-01', 'rest'), (100, '2031-01-01', 'rest')")
    source.execute("UPDATE event SET day = '2024-05-05', note = 'moved' WHERE id <= 10")
    source.execute("UPDATE event SET note = 'touched' WHERE id = 99; DELETE FROM event WHERE id = 100")
    source.execute("DELETE FROM event WHERE id = 11")
    engine.wait_until_identical()
    source.execute("CREATE TABLE event_2025 PARTITION OF event FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')")
    source.execute("INSERT INTO event VALUES (500, '2025-03-03', 'a new partition')")
    source.execute("TRUNCATE event_2023")
    engine.wait_until_durable(["public.event"])
    assert value(lake, "SELECT note FROM lake.event WHERE id = 500") == "a new partition"
    assert lake.execute("SELECT relname FROM pg_class WHERE relname LIKE 'event_2%'").fetchall() == []


@pytest.mark.all_versions
def test_generated_columns_arrive_where_the_server_sends_them(
    engine: EngineHarness, source: Connection, lake: Connection
) -> None:
    sends = source.info.server_version >= 180000
    virtual = ", v int GENERATED ALWAYS AS (a + 100) VIRTUAL" if sends else ""
    source.execute(
        f"CREATE TABLE item (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED{virtual})".encode()
    )
    source.execute("INSERT INTO item (id, a) VALUES (1, 10)")
    engine.start()
    source.execute("INSERT INTO item (id, a) VALUES (2, 20)")
    source.execute("UPDATE item SET a = 11 WHERE id = 1")
    engine.wait_until_identical()
    present = "SELECT attname FROM pg_attribute WHERE attrelid = 'lake.item'::regclass AND attnum > 0"
    columns = [name for (name,) in lake.execute(present)]
    if sends:
        assert columns == ["id", "a", "twice"]
        assert lake.execute("SELECT id, twice FROM lake.item ORDER BY id").fetchall() == [(1, 22), (2, 40)]
    else:
        assert columns == ["id", "a"]
    assert "generated columns aren't sent" in engine.cdc("check").stdout


@pytest.mark.all_versions
def test_odd_shapes_arrive(engine: EngineHarness, source: Connection) -> None:
    source.execute("CREATE TABLE composite (a int, b text, c date, note text, PRIMARY KEY (b, a, c))")
    source.execute('CREATE TABLE collated (name text COLLATE "C" PRIMARY KEY, n int)')
    loose = "(provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
    try:
        source.execute(f"CREATE COLLATION loose {loose}".encode())
    except psycopg.errors.FeatureNotSupported:  # the embedded server is built without ICU
        source.execute('CREATE COLLATION loose FROM "C"')
    source.execute("CREATE TABLE caseless (name text COLLATE loose PRIMARY KEY, n int)")
    source.execute("CREATE TABLE padded (code char(5) PRIMARY KEY, n int)")
    columns = '"Id" int PRIMARY KEY, "select" text, "a.b" text, "%s" text, "x\'y" text'
    source.execute(f'CREATE TABLE "Odd Näme ""quoted"" 🐘" ({columns})'.encode())
    source.execute('CREATE TABLE "UPPER" ("KEY" text PRIMARY KEY, "Value" text, "new:v" text, "{}" int)')
    wide = ", ".join(f"c{n} text" for n in range(150))
    source.execute(f"CREATE TABLE wide (id int PRIMARY KEY, {wide})".encode())
    source.execute("CREATE TABLE heavy (id int PRIMARY KEY, doc text)")
    source.execute("CREATE TABLE empty (id int PRIMARY KEY, note text)")
    source.execute("CREATE TABLE blank (id int PRIMARY KEY, a text, b text)")

    def write(n: int) -> None:
        source.execute("INSERT INTO composite VALUES (%s, 'b', '2024-01-01', 'x')", [n])
        source.execute("INSERT INTO composite VALUES (%s, '', '0044-03-15 BC', NULL)", [n])
        for name in ("a", "B", "ä", " a", "a ", "\\N", "\\", "\t", "\n", "\r\n", '"', "'", ",", "\\.", "NULL", "ﬀ"):
            source.execute("INSERT INTO collated VALUES (%s, %s)", [f"{name}{n}", n])
        source.execute("INSERT INTO collated VALUES (%s, %s)", ["\\." * (n - 1), n])
        source.execute("INSERT INTO caseless VALUES (%s, %s)", [f"Name{n}", n])
        source.execute("INSERT INTO padded VALUES (%s, %s)", [f"a{n}", n])
        source.execute('INSERT INTO "Odd Näme ""quoted"" 🐘" VALUES (%s, %s, %s, %s, %s)', [n, "s", None, "", "🐘"])
        source.execute('INSERT INTO "UPPER" VALUES (%s, %s, %s, %s)', [str(n), "v", None, n])
        source.execute("INSERT INTO wide (id, c0, c77, c149) VALUES (%s, 'first', '', 'last')", [n])
        source.execute("INSERT INTO heavy VALUES (%s, repeat(%s, 10 * 1024 * 1024 / 2))", [n, "ä"])
        source.execute("INSERT INTO blank VALUES (%s, '', NULL), (-%s, NULL, '')", [n, n])

    write(1)
    engine.start()
    write(2)
    with source.transaction():
        write(3)
        source.execute("UPDATE composite SET a = a + 10, note = note || 'y'")
        source.execute("UPDATE collated SET n = n + 1 WHERE name >= 'a'")
        source.execute("UPDATE caseless SET name = upper(name), n = n + 1")
        source.execute("UPDATE padded SET n = n + 1")
        source.execute('UPDATE "Odd Näme ""quoted"" 🐘" SET "select" = NULL, "Id" = "Id" + 10')
        source.execute('UPDATE "UPPER" SET "KEY" = \'moved \' || "KEY"')
        source.execute("UPDATE wide SET c5 = 'five'")
        source.execute("UPDATE heavy SET id = id + 10")
        source.execute("UPDATE blank SET a = b, b = a")
    source.execute("DELETE FROM padded WHERE code = 'a1'; DELETE FROM caseless WHERE name = 'nAME2'")
    names = [
        "composite",
        "collated",
        "caseless",
        "padded",
        'Odd Näme "quoted" 🐘',
        "UPPER",
        "wide",
        "heavy",
        "empty",
        "blank",
    ]
    engine.wait_until_identical(names)


def test_a_table_without_columns_stops_alone(engine: EngineHarness, source: Connection) -> None:
    source.execute("CREATE TABLE no_columns (); CREATE TABLE item (id int PRIMARY KEY)")
    engine.start()
    assert "expected a column, got none" in engine.wait_for_state("no_columns", "failed")["reason"]
    source.execute("INSERT INTO no_columns DEFAULT VALUES; INSERT INTO item VALUES (1)")
    engine.wait_until_identical(["item"])


@pytest.mark.all_versions
def test_logical_messages_are_passed_over(engine: EngineHarness, source: Connection) -> None:
    source.execute("CREATE TABLE item (id int PRIMARY KEY)")
    engine.start()
    with source.transaction():
        source.execute("INSERT INTO item VALUES (1)")
        source.execute("SELECT pg_logical_emit_message(true, 'app', 'in a transaction')")
        source.execute("INSERT INTO item VALUES (2)")
    source.execute("SELECT pg_logical_emit_message(false, 'app', 'on its own')")
    source.execute("SELECT pg_logical_emit_message(true, 'app', 'alone in a transaction')")
    source.execute("INSERT INTO item VALUES (3)")
    engine.wait_until_identical()


# large, interleaved, prepared


def stream_early(source: Connection) -> None:
    """Make the server send transactions of this database while they still run, from a few hundred changes on."""
    name = sql.Identifier(source.info.dbname)
    source.execute(sql.SQL("ALTER DATABASE {} SET logical_decoding_work_mem = '64kB'").format(name))


def assert_streamed(source: Connection, engine: EngineHarness) -> None:
    streamed = "SELECT stream_txns FROM pg_stat_replication_slots WHERE slot_name = %s"
    until(lambda: value(source, streamed, [engine.slot]), what="transactions were streamed")


@pytest.mark.all_versions
def test_large_transactions_arrive_among_small_and_aborted_ones(
    engine: EngineHarness, source: Connection, source_dsn: str
) -> None:
    source.execute("CREATE TABLE item (id int PRIMARY KEY, note text)")
    source.execute("CREATE TABLE small (id serial PRIMARY KEY, note text)")
    stream_early(source)
    engine.start()
    fill = "INSERT INTO item SELECT n, repeat('x', 40) FROM generate_series(%s::int, %s::int) n"
    with ExitStack() as stack:
        large, aborted, third = (stack.enter_context(connected(source_dsn)) for _ in range(3))
        for connection in (large, aborted, third):
            connection.execute("BEGIN")
        for step in range(6):
            large.execute(fill, [step * 50_000 + 1, (step + 1) * 50_000])
            aborted.execute(fill, [1_000_000 + step * 20_000, 1_000_000 + step * 20_000 + 19_999])
            source.execute("INSERT INTO small (note) VALUES (%s)", [f"between {step}"])
            large.execute("SAVEPOINT sub")
            large.execute(fill, [2_000_000 + step * 10_000, 2_000_000 + step * 10_000 + 9_999])
            large.execute("UPDATE item SET note = 'lost' WHERE id BETWEEN 100 AND 5000")
            large.execute("INSERT INTO small (note) VALUES ('lost')")
            large.execute("ROLLBACK TO SAVEPOINT sub" if step % 2 else "RELEASE SAVEPOINT sub")
            third.execute(fill, [3_000_000 + step * 10_000, 3_000_000 + step * 10_000 + 9_999])
        large.execute("UPDATE item SET id = -id WHERE id <= 20000")
        large.execute("DELETE FROM item WHERE id BETWEEN 30000 AND 40000")
        aborted.execute("ROLLBACK")
        third.execute("DELETE FROM item WHERE id % 2 = 0")
        third.execute("COMMIT")
        large.execute("COMMIT")
    engine.wait_until_identical(timeout=90)
    assert_streamed(source, engine)
    until(lambda: engine.status()["spilled_bytes"] == 0 and engine.status()["buffered_bytes"] == 0)


@pytest.mark.all_versions
def test_every_kind_of_change_arrives_from_streamed_transactions(
    engine: EngineHarness, source: Connection, source_dsn: str
) -> None:
    source.execute("CREATE TABLE item (id int PRIMARY KEY, note text, big text)")
    source.execute("CREATE TABLE bag (n int, note text); ALTER TABLE bag REPLICA IDENTITY FULL")
    source.execute("CREATE TABLE log (n int); CREATE TABLE wiped (id int PRIMARY KEY)")
    toasted(source, "item", "big")
    source.execute("INSERT INTO item SELECT n, 'x', repeat('b', 9000) FROM generate_series(1, 20) n")
    source.execute("INSERT INTO wiped SELECT n FROM generate_series(1, 100) n")
    stream_early(source)
    engine.start()
    with connected(source_dsn) as first, connected(source_dsn) as second:
        for connection in (first, second):
            connection.execute("BEGIN")
        for step in range(10):
            for connection, base in ((first, 0), (second, 100_000)):
                low = base + step * 1000 + 1000
                fill = "INSERT INTO item SELECT n, 'y' FROM generate_series(%s::int, %s::int) n"
                connection.execute(fill, [low, low + 700])
                connection.execute("SAVEPOINT one")
                connection.execute("INSERT INTO log SELECT n FROM generate_series(1, 500) n")
                connection.execute("UPDATE item SET note = 'updated' WHERE id BETWEEN %s AND %s", [low, low + 300])
                connection.execute("SAVEPOINT two")
                connection.execute("DELETE FROM item WHERE id BETWEEN %s AND %s", [low + 200, low + 400])
                connection.execute("INSERT INTO bag SELECT n % 3, 'same' FROM generate_series(1, 400) n")
                connection.execute(f"ROLLBACK TO SAVEPOINT {'two' if step % 3 else 'one'}".encode())
                connection.execute("INSERT INTO bag SELECT n % 3, NULL FROM generate_series(1, 5) n")
            source.execute("UPDATE item SET note = note || '!' WHERE id = 20")
        first.execute("UPDATE item SET id = -id, note = 'moved' WHERE id <= 10")
        first.execute("DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag WHERE n = 1 LIMIT 2)")
        first.execute("TRUNCATE wiped; INSERT INTO wiped VALUES (7)")
        engine.wait_until_durable()
        engine.kill()  # in the middle of both: everything is streamed again
        engine.start()
        second.execute("COMMIT")
        first.execute("COMMIT")
    engine.wait_until_identical()
    assert_streamed(source, engine)


@pytest.mark.all_versions
def test_prepared_transactions_arrive_with_their_outcome(
    source: Connection, source_dsn: str, lake_dsn: str, make_engine: MakeEngine
) -> None:
    engine = make_engine(source_dsn, lake_dsn, options={"two_phase": True})
    stream_early(source)
    source.execute("CREATE TABLE item (id int PRIMARY KEY, note text)")
    source.execute("INSERT INTO item VALUES (1, 'before')")
    for gid in ("across the start", "rolled back across the start"):
        source.execute("BEGIN")
        source.execute("INSERT INTO item VALUES (%s, %s)", [len(gid), gid])
        source.execute(sql.SQL("PREPARE TRANSACTION {}").format(sql.Literal(gid)))
    with ExitStack() as stack:
        engine.process.start()
        stack.callback(engine.kill)
        until(lambda: value(source, "SELECT count(*) FROM pg_publication") == 2, what="published")
        source.execute("COMMIT PREPARED 'across the start'")
        source.execute("ROLLBACK PREPARED 'rolled back across the start'")
        engine.process.wait_until_ready(30)
        engine.wait_until_identical()
        for number, gid in enumerate(("kept", "dropped", "over a restart", "dropped over a restart", "over a kill"), 2):
            source.execute("BEGIN")
            source.execute("INSERT INTO item VALUES (%s, %s)", [number, gid])
            source.execute("UPDATE item SET note = note || %s WHERE id = 1" if number == 2 else "SELECT %s", [gid])
            source.execute(sql.SQL("PREPARE TRANSACTION {}").format(sql.Literal(gid)))
            source.execute("INSERT INTO item VALUES (%s, 'between')", [number + 100])
        source.execute("COMMIT PREPARED 'kept'")
        source.execute("ROLLBACK PREPARED 'dropped'")
        engine.poll_until_identical(["item"])
        engine.restart()
        source.execute("INSERT INTO item VALUES (200, 'after the restart')")
        source.execute("COMMIT PREPARED 'over a restart'")
        source.execute("ROLLBACK PREPARED 'dropped over a restart'")
        engine.poll_until_identical(["item"])
        engine.kill()
        source.execute("COMMIT PREPARED 'over a kill'")
        engine.start()
        source.execute("INSERT INTO item VALUES (201, 'after the kill')")
        engine.wait_until_identical()
        for gid in ("large and kept", "large and dropped"):  # streamed before they are prepared
            source.execute("BEGIN")
            source.execute(
                "INSERT INTO item SELECT n + %s, 'large' FROM generate_series(1, 5000) n", [len(gid) * 10**5]
            )
            source.execute("UPDATE item SET note = note || %s WHERE id > 300", [gid])
            source.execute(sql.SQL("PREPARE TRANSACTION {}").format(sql.Literal(gid)))
        engine.restart()
        source.execute("ROLLBACK PREPARED 'large and dropped'")
        source.execute("COMMIT PREPARED 'large and kept'")
        engine.wait_until_identical()
        assert_streamed(source, engine)


# tables that come, change and go


@pytest.mark.all_versions
def test_a_table_made_while_the_engine_runs_is_found_and_copied(
    engine: EngineHarness, source: Connection, source_dsn: str
) -> None:
    source.execute("CREATE TABLE item (id int PRIMARY KEY)")
    engine.start()
    with connected(source_dsn) as earlier, connected(source_dsn) as writer:
        source.execute("CREATE TABLE late (id int PRIMARY KEY, note text)")
        source.execute("INSERT INTO late SELECT n, 'first' FROM generate_series(1, 5000) n")
        earlier.execute("BEGIN")
        earlier.execute("INSERT INTO late VALUES (-1, 'from before the publication')")
        published = "SELECT count(*) FROM pg_publication_tables WHERE tablename = 'late'"
        count = 0
        while not value(source, published) or count < 300:
            count += 1
            writer.execute("INSERT INTO late VALUES (%s, 'while it is found')", [10_000 + count])
            writer.execute("UPDATE late SET note = 'changed' WHERE id = %s", [count])
            source.execute("INSERT INTO item VALUES (%s)", [count])
        earlier.execute("UPDATE late SET note = 'by the earlier one' WHERE id = 4000")
        earlier.execute("COMMIT")
        writer.execute("DELETE FROM late WHERE id % 10 = 0")
    engine.wait_until_identical(["item", "late"])


def test_a_new_table_with_a_long_transaction_holds_nothing_else_up(
    engine: EngineHarness, source: Connection, source_dsn: str
) -> None:
    source.execute("CREATE TABLE item (id int PRIMARY KEY)")
    engine.start()
    with connected(source_dsn) as earlier:
        source.execute("CREATE TABLE late (id int PRIMARY KEY, note text)")
        earlier.execute("BEGIN")
        earlier.execute("INSERT INTO late VALUES (-1, 'from before the publication')")
        until(lambda: value(source, "SELECT count(*) FROM pg_publication_tables WHERE tablename = 'late'"))
        source.execute("INSERT INTO item VALUES (1)")
        engine.wait_until_identical(["item"])
        source.execute("INSERT INTO late VALUES (1, 'while it waits')")
        engine.wait_for_state("late", "copying")
        source.execute("CREATE TABLE later (id int PRIMARY KEY)")  # found and copied while the other one waits
        engine.wait_for_state("later", "streaming")
        assert engine.table("late")["state"] == "copying"
        earlier.execute("COMMIT")
    engine.wait_until_identical(["item", "late", "later"])


def test_a_table_whose_columns_change_stops_alone_and_is_healed_by_a_restart(
    engine: EngineHarness, source: Connection, lake: Connection
) -> None:
    source.execute("CREATE TABLE item (id int PRIMARY KEY, price numeric(10,2))")
    source.execute("CREATE TABLE other (id int PRIMARY KEY, note text)")
    source.execute("INSERT INTO item VALUES (1, 1.50)")
    engine.start()
    engine.wait_until_identical()
    source.execute("ALTER TABLE item ADD COLUMN size int DEFAULT 7")
    source.execute("INSERT INTO item VALUES (2, 2.50, 8)")
    source.execute("INSERT INTO other VALUES (1, 'goes on')")
    found = engine.wait_for_state("item", "failed")
    assert "its columns changed at the source (added size)" in found["reason"]
    source.execute("INSERT INTO other VALUES (2, 'goes on')")
    engine.wait_until_identical(["other"])
    assert value(lake, "SELECT count(*) FROM lake.item") == 1
    engine.restart()
    engine.wait_until_identical()
    assert value(lake, "SELECT size FROM lake.item WHERE id = 1") == 7


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE item ALTER price TYPE numeric(12,4) USING price + 0.0005",
        "ALTER TABLE item DROP COLUMN price, ADD COLUMN price text DEFAULT 'cheap'",
        "ALTER TABLE item RENAME COLUMN price TO cost",
        "ALTER TABLE item ADD COLUMN size int DEFAULT 7",
    ],
)
def test_columns_that_change_unseen_by_the_stream_are_seen_by_the_catalog(
    engine: EngineHarness, source: Connection, lake: Connection, change: str
) -> None:
    """No row follows the change for a while, so that the next look at the catalog comes first."""
    source.execute("CREATE TABLE item (id int PRIMARY KEY, price numeric(10,2))")
    source.execute("CREATE TABLE seen (id int PRIMARY KEY)")
    source.execute("INSERT INTO item VALUES (1, 1.50)")
    engine.start()
    engine.wait_until_identical(["item", "seen"])
    source.execute(change.encode())
    source.execute("CREATE TABLE sign (id int PRIMARY KEY)")
    engine.wait_for_state("sign", "streaming")
    found = engine.wait_for_state("item", "failed")
    assert "its columns changed at the source" in found["reason"]
    source.execute("UPDATE item SET id = id + 1")
    source.execute("INSERT INTO item (id) VALUES (10)")
    source.execute("INSERT INTO seen VALUES (1)")
    engine.wait_until_identical(["seen"])
    engine.restart()
    if "price" in change and "RENAME" not in change:  # the lake's column is of the old type: the reason says what to do
        found = engine.wait_for_state("item", "failed")
        assert "lake column lake.item.price: expected type" in found["reason"]
        assert "alter or drop it" in found["reason"]
        lake.execute("ALTER TABLE lake.item DROP COLUMN price")
        engine.restart()
    engine.wait_until_identical()


def test_a_renamed_table_is_copied_under_its_new_name(
    engine: EngineHarness, source: Connection, lake: Connection
) -> None:
    source.execute("CREATE TABLE item (id int PRIMARY KEY, note text)")
    source.execute("CREATE TABLE other (id int PRIMARY KEY)")
    source.execute("INSERT INTO item VALUES (1, 'a')")
    engine.start()
    engine.wait_until_identical()
    source.execute("ALTER TABLE item RENAME TO article")
    source.execute("INSERT INTO article VALUES (2, 'b')")
    source.execute("INSERT INTO other VALUES (1)")
    engine.wait_for_state("article", "streaming")
    source.execute("INSERT INTO article VALUES (3, 'c')")
    engine.wait_until_identical(["other", "article"])
    engine.wait_for_state("item", "failed")
    assert value(lake, "SELECT count(*) FROM lake.item") == 1, "the last good copy stays"
    engine.restart()
    source.execute("UPDATE article SET note = 'd'")
    engine.wait_until_identical()


def test_a_dropped_table_leaves_its_copy_and_the_others(
    engine: EngineHarness, source: Connection, lake: Connection
) -> None:
    source.execute("CREATE TABLE item (id int PRIMARY KEY, note text)")
    source.execute("CREATE TABLE other (id int PRIMARY KEY)")
    source.execute("INSERT INTO item VALUES (1, 'a')")
    engine.start()
    engine.wait_until_identical()
    source.execute("INSERT INTO item VALUES (2, 'last words'); DROP TABLE item")
    source.execute("INSERT INTO other VALUES (1)")
    engine.wait_until_identical(["other"])
    found = engine.wait_for_state("item", "failed")
    assert found["reason"]
    assert value(lake, "SELECT count(*) FROM lake.item") == 2
    engine.restart()
    source.execute("CREATE TABLE item (id int PRIMARY KEY, note text, more int)")
    source.execute("INSERT INTO item VALUES (7, 'another table of this name', 1)")
    engine.wait_for_state("item", "streaming")
    engine.wait_until_identical()


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE item ADD COLUMN size int DEFAULT 7",
        "ALTER TABLE item RENAME TO article",
        "ALTER TABLE item DROP COLUMN note",
    ],
)
def test_a_backlog_from_before_a_change_of_columns_does_not_stop_the_new_copy(
    engine: EngineHarness, source: Connection, change: str
) -> None:
    """The log still holds rows of the old shape when the table is copied anew; the copy has them already."""
    source.execute("CREATE TABLE item (id int PRIMARY KEY, note text, more text)")
    source.execute("INSERT INTO item VALUES (1, 'a', 'b')")
    engine.start()
    engine.wait_until_identical()
    engine.kill()
    source.execute("INSERT INTO item SELECT n, 'old', 'shape' FROM generate_series(10, 50) n")
    source.execute("UPDATE item SET id = id + 100 WHERE id < 20")
    source.execute(change.encode())
    now = "article" if "RENAME" in change else "item"
    source.execute(f"INSERT INTO {now} (id) VALUES (2)".encode())
    engine.start()
    source.execute(f"INSERT INTO {now} (id) VALUES (3)".encode())
    engine.wait_until_identical([now])


def test_the_stream_is_the_same_through_libpq(
    source_dsn: str, lake_dsn: str, make_engine: MakeEngine, source: psycopg.Connection[Any]
) -> None:
    """A connection that may be encrypted isn't read straight from its socket."""
    separator = "&" if "?" in source_dsn else "?"
    engine = make_engine(f"{source_dsn}{separator}gssencmode=prefer", lake_dsn)
    source.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    engine.start()
    source.execute("INSERT INTO item SELECT i, repeat('x', i % 500) FROM generate_series(1, 20000) i")
    source.execute("UPDATE item SET name = 'changed' WHERE id % 3 = 0")
    source.execute("DELETE FROM item WHERE id % 5 = 0")
    engine.wait_until_durable()
    engine.source_dsn = source_dsn
    engine.wait_until_identical(["item"])
