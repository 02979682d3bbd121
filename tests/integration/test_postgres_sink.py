"""The Postgres lake sink against a real server: tables, copies, groups, refusals, faults."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest
from sink_batches import (
    UNCHANGED,
    FixedWatermark,
    NumberedPosition,
    batch_of,
    copy_of,
    delete,
    group_of,
    insert,
    schema_of,
    target_of,
    truncate_of,
    update,
)

from cdc.contracts import Severity, TableState
from cdc.errors import (
    ApplyRefusedError,
    CdcError,
    ConfigError,
    FencedError,
    OperatorError,
    PrivilegeError,
    SinkUnavailableError,
)
from cdc.schema import (
    Array,
    Composite,
    Date,
    Decimal,
    Enum,
    Int,
    Json,
    Opaque,
    Range,
    RowIdentity,
    TableId,
    Text,
    Timestamp,
    Vector,
)
from sinks.postgres import PostgresSink

pytestmark = pytest.mark.servers

ITEMS = schema_of()
LARGE = 1000
"""A group that says to have this many rows is written in sets, however few there are."""


@pytest.fixture
def sink(lake_dsn):
    made = PostgresSink(lake_dsn)
    made.install()
    return made


@pytest.fixture
def user(lake_dsn):
    with psycopg.connect(lake_dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def lane(sink):
    with closing(sink.lane("shop")) as opened:
        opened.begin(NumberedPosition(0))
        opened.prepare(ITEMS, target_of(ITEMS))
        yield opened


@pytest.fixture(params=[None, LARGE], ids=["small", "large"])
def size(request):
    """Both ways of writing a group."""
    return request.param


def items(user):
    return dict(user.execute("SELECT id, note FROM lake.items").fetchall())


# install, positions, progress


def test_installs_in_parallel_make_the_tables_once(lake_dsn):
    threads = [threading.Thread(target=PostgresSink(lake_dsn).install) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert PostgresSink(lake_dsn).progress() == {}


def test_progress_is_empty_before_install(lake_dsn):
    assert PostgresSink(lake_dsn).progress() == {}


def test_progress_returns_what_was_stored(sink, lane):
    lane.apply(group_of(7, batch_of(ITEMS, [insert(id="1")])))
    found = sink.progress()["shop"]
    assert found == lane.progress()
    assert found.position == NumberedPosition(7).token()
    assert found.committed_at == 7.0
    table = found.tables[ITEMS.table]
    assert (table.target, table.state, table.schema) == (target_of(ITEMS), TableState.PENDING, ITEMS)


def test_begin_leaves_a_stored_position(lane):
    lane.begin(NumberedPosition(9))
    assert lane.progress().position == NumberedPosition(0).token()


def test_forgetting_a_source_empties_its_position_and_fences_its_lane(sink, lane):
    lane.copy(copy_of(ITEMS, "1\ta\n"), target_of(ITEMS))
    sink.forget("shop", None)
    found = sink.progress()["shop"]
    assert found.position == ""
    assert found.tables[ITEMS.table].state is TableState.PENDING
    assert found.tables[ITEMS.table].watermark is None
    with pytest.raises(FencedError):
        lane.apply(group_of(1))
    lane.progress()
    lane.begin(NumberedPosition(5))
    lane.apply(group_of(6))


def test_forgetting_one_table_leaves_the_rest(sink, lane):
    lane.copy(copy_of(ITEMS, "1\ta\n"), target_of(ITEMS))
    sink.forget("shop", [ITEMS.table])
    assert sink.progress()["shop"].tables[ITEMS.table].state is TableState.PENDING
    assert sink.progress()["shop"].position == NumberedPosition(0).token()


def test_two_engines_on_one_source_are_fenced(sink, lane, user, size):
    lane.apply(group_of(1, batch_of(ITEMS, [insert(id="1", note="first")]), row_count=size))
    with closing(sink.lane("shop")) as other:
        other.apply(group_of(2, batch_of(ITEMS, [insert(id="2", note="other")]), row_count=size))
        with pytest.raises(FencedError):
            lane.apply(group_of(2, batch_of(ITEMS, [insert(id="3", note="late")]), row_count=size))
    assert items(user) == {1: "first", 2: "other"}


def test_a_failed_table_keeps_its_reason(sink, lane):
    lane.fail(ITEMS.table, target_of(ITEMS), "no room")
    found = sink.progress()["shop"].tables[ITEMS.table]
    assert (found.state, found.reason, found.schema) == (TableState.FAILED, "no room", ITEMS)


def test_a_group_marks_tables_as_passed_and_failed_with_its_rows(sink, lane):
    lane.copy(copy_of(ITEMS, "1\ta\n", token="mark"), target_of(ITEMS))
    assert sink.progress()["shop"].tables[ITEMS.table].watermark == "mark"
    marks = {ITEMS.table: FixedWatermark("mark")}
    lane.apply(group_of(1, passed=[ITEMS.table], watermarks=marks, failed={ITEMS.table: "stopped"}))
    found = sink.progress()["shop"].tables[ITEMS.table]
    assert (found.state, found.watermark, found.reason) == (TableState.FAILED, None, "stopped")


def test_a_watermark_that_a_copy_has_stored_meanwhile_is_not_cleared(sink, lane):
    lane.copy(copy_of(ITEMS, "1\ta\n", token="newer"), target_of(ITEMS))
    lane.apply(group_of(1, passed=[ITEMS.table], watermarks={ITEMS.table: FixedWatermark("older")}))
    assert sink.progress()["shop"].tables[ITEMS.table].watermark == "newer"


# prepare and plan


def test_types_arrive_as_they_are_at_the_source(sink, user):
    user.execute("CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE EXTENSION vector SCHEMA ext")
    mood = Enum("public.mood", ("sad", "o'k\\", "happy"))
    columns = [
        ("id", "public.citext", Opaque("public.citext")),
        ("amount", "numeric(12,2)", Decimal(12, 2)),
        ("code", "character varying(160)", Text(160)),
        ("padded", "character(5)", Text(5, fixed=True)),
        ("at", "timestamp(3) with time zone", Timestamp(with_zone=True, precision=3)),
        ("span", "interval day to second(2)", Opaque("interval")),
        ("mood", "public.mood", mood),
        ("moods", "public.mood[]", Array(mood)),
        ("pair", "public.pair", Composite("public.pair", (("x", Int(32)), ("mood", mood)))),
        ("window", "public.floatrange", Range("public.floatrange", Decimal())),
        ("windows", "public.floatmultirange", Range("public.floatmultirange", Decimal(), multi=True)),
        ("days", "daterange", Range("daterange", Date())),
        ("embedding", "public.vector(3)", Vector(3)),
        ("tags", "numeric(4,1)[]", Array(Decimal(4, 1))),
        ("email", "public.email", Text()),
        ("flags", "bit varying(5)", Opaque("bit varying")),
        ("kind", '"char"', Opaque('"char"')),
        ("doc", "jsonb", Json(binary=True)),
        ("place", "public.geometry(Point,4326)", Opaque("public.geometry")),
        ("table", "regclass", Opaque("regclass")),
        ("places", "public.geometry[]", Array(Opaque("public.geometry"))),
    ]
    schema = schema_of("public.kinds", columns)
    steps = sink.plan({schema.table: (schema, target_of(schema))})
    notes = next(step.summary for step in steps if step.summary.startswith("table"))
    assert "place as text because the lake has no type public.geometry" in notes
    assert "table as text because it names objects of the source" in notes
    assert "places as text because" in notes
    lane = sink.lane("shop")
    lane.prepare(schema, target_of(schema))
    lane.prepare(schema, target_of(schema))
    assert sink.plan({schema.table: (schema, target_of(schema))}) == []
    found = user.execute(
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute"
        " WHERE attrelid = 'lake.kinds'::regclass AND attnum > 0 ORDER BY attnum"
    ).fetchall()
    assert [name for name, _, not_null in found if not_null] == ["id"]
    assert {name: kind for name, kind, _ in found} == {
        **{name: source_type for name, source_type, _ in columns},
        "id": "ext.citext",
        "mood": "lake.mood",
        "moods": "lake.mood[]",
        "pair": "lake.pair",
        "window": "lake.floatrange",
        "windows": "lake.floatmultirange",
        "embedding": "ext.vector(3)",
        "email": "text",
        "place": "text",
        "table": "text",
        "places": "text",
    }
    lane.close()


def test_extension_keys_are_compared_by_their_own_operator(sink, user, size):
    user.execute("CREATE EXTENSION citext")
    schema = schema_of("public.names", [("id", "public.citext", Opaque("public.citext")), ("n", "integer", Int(32))])
    with closing(sink.lane("shop")) as lane:
        lane.begin(NumberedPosition(0))
        lane.prepare(schema, target_of(schema))
        lane.apply(group_of(1, batch_of(schema, [insert(id="Ann", n="1"), insert(id="Bob", n="2")])))
        user.execute("UPDATE lake.names SET id = lower(id)")
        lane.apply(group_of(2, batch_of(schema, [delete({"id": "BOB"})]), row_count=size))
        lane.apply(group_of(3, batch_of(schema, [update({"id": "ann", "n": "3"}, {"id": "Ann"})]), row_count=size))
    assert user.execute("SELECT id::text, n FROM lake.names").fetchall() == [("ann", 3)]


def test_columns_and_enum_labels_are_added_and_users_columns_stay(sink, user):
    kind = ("kind", "public.kind", Enum("public.kind", ("a", "c")))
    before = schema_of("public.grown", [("id", "integer", Int(32)), kind])
    wider = ("kind", "public.kind", Enum("public.kind", ("a", "b", "c")))
    after = schema_of("public.grown", [("id", "integer", Int(32)), wider, ("more", "numeric(5,1)", Decimal(5, 1))])
    lane = sink.lane("shop")
    lane.prepare(before, target_of(before))
    user.execute("ALTER TABLE lake.grown ADD COLUMN mine text")
    lane.prepare(after, target_of(after))
    columns = user.execute("SELECT attname FROM pg_attribute WHERE attrelid = 'lake.grown'::regclass AND attnum > 0")
    assert [name for (name,) in columns] == ["id", "kind", "mine", "more"]
    assert user.execute("SELECT enum_range(NULL::lake.kind)::text").fetchone() == ("{a,b,c}",)
    lane.close()


@pytest.mark.parametrize(
    ("done", "says"),
    [
        (
            "ALTER TABLE lake.items ALTER COLUMN note TYPE varchar(5)",
            "lake.items.note: expected type text, got character",
        ),
        ("ALTER TABLE lake.items DROP CONSTRAINT items_pkey", r"expected primary key \(id\), got none"),
        ("DROP TABLE lake.items; CREATE VIEW lake.items AS SELECT 1 AS id", "something that isn't a table"),
        ("UPDATE cdc.tables SET source = 'other'", "got the copy of other public.items"),
        ("DELETE FROM cdc.tables", "expected none or our copy, got a table of its own"),
    ],
)
def test_prepare_refuses_a_table_that_does_not_fit(lane, user, done, says):
    user.execute(done)
    with pytest.raises(ApplyRefusedError, match=says) as caught:
        lane.prepare(ITEMS, target_of(ITEMS))
    assert caught.value.table == "public.items"


def test_prepare_refuses_to_take_over_a_column_of_the_users(lane, user):
    user.execute("ALTER TABLE lake.items ADD COLUMN region text")
    wider = schema_of(columns=[("id", "integer", Int(32)), ("note", "text", Text()), ("region", "text", Text())])
    with pytest.raises(ApplyRefusedError, match="users own"):
        lane.prepare(wider, target_of(wider))


def test_prepare_in_parallel_makes_the_table_once(lake_dsn):
    schema = schema_of(
        "public.raced", [("id", "integer", Int(32)), ("mood", "public.mood", Enum("public.mood", ("a",)))]
    )
    PostgresSink(lake_dsn).install()
    failures = []

    def prepare():
        try:
            PostgresSink(lake_dsn).lane("shop").prepare(schema, target_of(schema))
        except CdcError as error:
            failures.append(error)

    threads = [threading.Thread(target=prepare) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_role_without_privileges_is_told_so(sink, lake_server, lake_dsn, user):
    user.execute("DROP ROLE IF EXISTS limited; CREATE ROLE limited LOGIN")
    limited = PostgresSink(psycopg.conninfo.make_conninfo(lake_dsn, user="limited", password=""))
    found = {finding.subject: finding for finding in limited.check()}
    assert found["lake privilege CREATE"].severity is Severity.ERROR
    assert found["lake privilege CREATE"].fix.startswith("GRANT CREATE ON DATABASE")
    assert found["lake version"].severity is Severity.OK
    with pytest.raises(OperatorError):
        limited.progress()
    user.execute("DROP ROLE limited")


def test_check_says_that_the_lake_is_unreachable():
    (finding,) = PostgresSink("host=/nowhere dbname=lake").check()
    assert finding.severity is Severity.ERROR


def test_a_lake_that_refuses_the_connection_is_not_waited_for(lake_dsn):
    missing = PostgresSink(psycopg.conninfo.make_conninfo(lake_dsn, dbname="nowhere"))
    with pytest.raises(ConfigError, match="nowhere"):
        missing.progress()
    stranger = PostgresSink(psycopg.conninfo.make_conninfo(lake_dsn, user="stranger"))
    with pytest.raises(PrivilegeError, match="stranger"):
        stranger.lane("shop").progress()
    with pytest.raises(ConfigError, match=r"lake\.url"):
        PostgresSink("postgresql://[").progress()


# copy


def test_a_copy_fills_an_empty_table(sink, lane, user):
    assert lane.copy(copy_of(ITEMS, "1\ta\\tb\n2\t\\N\n3\t\n", token="m"), target_of(ITEMS)) == 3
    assert items(user) == {1: "a\tb", 2: None, 3: ""}
    found = sink.progress()["shop"].tables[ITEMS.table]
    assert (found.state, found.watermark) == (TableState.STREAMING, "m")


def test_a_copy_is_merged_and_users_columns_survive(lane, user):
    lane.copy(copy_of(ITEMS, "1\ta\n2\tb\n3\tc\n"), target_of(ITEMS))
    user.execute("ALTER TABLE lake.items ADD COLUMN mine text; UPDATE lake.items SET mine = 'm' || id")
    same = user.execute("SELECT ctid FROM lake.items WHERE id = 1").fetchone()
    assert lane.copy(copy_of(ITEMS, "1\ta\n3\tC\n4\td\n"), target_of(ITEMS)) == 3
    rows = user.execute("SELECT id, note, mine FROM lake.items ORDER BY id").fetchall()
    assert rows == [(1, "a", "m1"), (3, "C", "m3"), (4, "d", None)]
    assert user.execute("SELECT ctid FROM lake.items WHERE id = 1").fetchone() == same


def test_a_copy_of_a_table_without_key_replaces_its_rows(sink, user):
    bag = schema_of("public.bag", [("note", "text", Text())], key=(), identity=RowIdentity.FULL_ROW)
    with closing(sink.lane("shop")) as lane:
        lane.prepare(bag, target_of(bag))
        lane.copy(copy_of(bag, "a\na\n"), target_of(bag))
        lane.copy(copy_of(bag, "b\n"), target_of(bag))
    assert user.execute("SELECT note FROM lake.bag").fetchall() == [("b",)]


def test_a_copy_that_breaks_off_leaves_the_table_as_it_was(lane, user):
    lane.copy(copy_of(ITEMS, "1\ta\n"), target_of(ITEMS))

    def broken():
        yield b"2\tb\n"
        raise SinkUnavailableError("source hung up")

    with pytest.raises(SinkUnavailableError, match="source hung up"):
        lane.copy(replace(copy_of(ITEMS, ""), chunks=broken()), target_of(ITEMS))
    assert items(user) == {1: "a"}


def test_a_copy_that_the_lake_refuses_names_the_table_and_no_value(lane):
    with pytest.raises(ApplyRefusedError) as caught:
        lane.copy(copy_of(ITEMS, "canary\ta\n"), target_of(ITEMS))
    assert caught.value.table == "public.items"
    assert "22P02" in str(caught.value)
    assert "column id" in str(caught.value)
    assert "canary" not in str(caught.value)


# apply


def test_large_values_that_were_not_repeated_stay(lane, user, size):
    lane.apply(group_of(1, batch_of(ITEMS, [insert(id="1", note="large")])))
    lane.apply(group_of(2, batch_of(ITEMS, [update({"id": "1", "note": UNCHANGED})]), row_count=size))
    moved = update({"id": "2", "note": UNCHANGED}, {"id": "1"})
    lane.apply(group_of(3, batch_of(ITEMS, [moved]), row_count=size))
    assert items(user) == {2: "large"}


def test_a_row_that_cannot_be_rebuilt_stops_its_table(lane, user, size):
    wide = schema_of("public.wide", [("id", "integer", Int(32)), ("note", "text", Text()), ("large", "text", Text())])
    lane.prepare(wide, target_of(wide))
    missing = update({"id": "1", "note": "new", "large": UNCHANGED})
    with pytest.raises(ApplyRefusedError, match=r"public.wide: expected 1 rows to change, got 0"):
        lane.apply(group_of(1, batch_of(ITEMS, [insert(id="1")]), batch_of(wide, [missing]), row_count=size))
    assert items(user) == {}
    lane.apply(group_of(1, batch_of(ITEMS, [insert(id="1")]), row_count=size))
    assert items(user) == {1: None}


def test_a_complete_row_that_moves_and_is_missing_is_inserted(lane, user, size):
    lane.apply(group_of(1, batch_of(ITEMS, [update({"id": "2", "note": "n"}, {"id": "1"})]), row_count=size))
    assert items(user) == {2: "n"}


def test_rows_that_move_in_a_chain_and_are_missing_are_inserted(lane, user):
    lane.apply(group_of(1, batch_of(ITEMS, [insert(id="1", note="a")])))
    chain = [update({"id": "3", "note": "b"}, {"id": "2"}), update({"id": "2", "note": "a"}, {"id": "1"})]
    lane.apply(group_of(2, batch_of(ITEMS, chain), row_count=LARGE))
    assert items(user) == {2: "a", 3: "b"}


def test_deleting_and_inserting_a_key_again_keeps_nothing_of_the_old_row(lane, user, size):
    lane.apply(group_of(1, batch_of(ITEMS, [insert(id="1", note="old")])))
    user.execute("ALTER TABLE lake.items ADD COLUMN mine text; UPDATE lake.items SET mine = 'm'")
    again = batch_of(ITEMS, [delete({"id": "1"}), insert(id="1", note="new")])
    lane.apply(group_of(2, again, row_count=size))
    assert user.execute("SELECT id, note, mine FROM lake.items").fetchall() == [(1, "new", None)]


def test_every_key_shifted_by_one_keeps_its_row(lane, user):
    rows = [{"id": str(i), "note": f"n{i}"} for i in range(200)]
    lane.apply(group_of(1, batch_of(ITEMS, [insert(**row) for row in rows])))
    user.execute("ALTER TABLE lake.items ADD COLUMN mine text; UPDATE lake.items SET mine = note")
    lane.apply(
        group_of(2, batch_of(ITEMS, [update({**r, "id": str(i + 1)}, r, whole=True) for i, r in enumerate(rows)]))
    )
    found = user.execute("SELECT id, note, mine FROM lake.items ORDER BY id").fetchall()
    assert found == [(i + 1, f"n{i}", f"n{i}") for i in range(200)]


def test_inserts_that_meet_a_row_are_upserted_after_all(lane, user):
    lane.apply(group_of(1, batch_of(ITEMS, [insert(id="1", note="was")]), row_count=LARGE))
    lane.apply(group_of(2, batch_of(ITEMS, [insert(id="1", note="is"), insert(id="2")]), row_count=LARGE))
    assert items(user) == {1: "is", 2: None}


def test_a_truncate_empties_the_table_for_readers_at_commit_only(lane, user, lake_dsn, size):
    lane.apply(group_of(1, batch_of(ITEMS, [insert(id="1")])))
    with psycopg.connect(lake_dsn) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert reader.execute("SELECT count(*) FROM lake.items").fetchone() == (1,)
        lane.apply(group_of(2, truncate_of(ITEMS), batch_of(ITEMS, [insert(id="2")]), row_count=size))
        assert reader.execute("SELECT id FROM lake.items").fetchall() == [(1,)]
    assert items(user) == {2: None}


def test_tables_without_identity_take_inserts_and_refuse_the_rest(sink, user, size):
    log = schema_of("public.log", [("note", "text", Text())], key=(), identity=RowIdentity.APPEND)
    with closing(sink.lane("shop")) as lane:
        lane.begin(NumberedPosition(0))
        lane.prepare(log, target_of(log))
        lane.apply(group_of(1, batch_of(log, [insert(note="a"), insert(note="a")]), row_count=size))
        with pytest.raises(ApplyRefusedError, match=r"public.log.*append"):
            lane.apply(group_of(2, batch_of(log, [delete({"note": "a"})]), row_count=size))
    assert user.execute("SELECT note FROM lake.log").fetchall() == [("a",), ("a",)]


def test_a_missing_row_of_a_table_without_key_stops_it(sink, user):
    bag = schema_of("public.bag", [("note", "text", Text())], key=(), identity=RowIdentity.FULL_ROW)
    with closing(sink.lane("shop")) as lane:
        lane.begin(NumberedPosition(0))
        lane.prepare(bag, target_of(bag))
        lane.apply(group_of(1, batch_of(bag, [insert(note="a")])))
        with pytest.raises(ApplyRefusedError, match=r"public.bag: expected 2 rows to change, got 1"):
            lane.apply(group_of(2, batch_of(bag, [delete({"note": "a"}, whole=True)] * 2)))
    assert user.execute("SELECT note FROM lake.bag").fetchall() == [("a",)]


def test_odd_names_are_quoted(sink, user, size):
    columns = [('i "d%s', "integer", Int(32)), ("100%", "text", Text())]
    odd = schema_of('public.o"d%s', columns, key=('i "d%s',))
    with closing(sink.lane("shop")) as lane:
        lane.begin(NumberedPosition(0))
        lane.prepare(odd, target_of(odd))
        first, second = {'i "d%s': "1", "100%": "%s"}, {'i "d%s': "2", "100%": "b"}
        lane.apply(group_of(1, batch_of(odd, [insert(**first)]), row_count=size))
        moved = update({**second, "100%": UNCHANGED}, {'i "d%s': "1"})
        lane.apply(group_of(2, batch_of(odd, [update(first), moved]), row_count=size))
    assert user.execute('SELECT * FROM lake."o""d%s"').fetchall() == [(2, "%s")]


@pytest.mark.parametrize(
    "rule", ["CHECK (note <> 'canary')", "CONSTRAINT mine UNIQUE (note) DEFERRABLE INITIALLY DEFERRED"]
)
def test_a_users_constraint_stops_the_table_and_nothing_is_written(lane, user, size, rule):
    other = schema_of("public.other")
    lane.prepare(other, target_of(other))
    lane.apply(group_of(1, batch_of(ITEMS, [insert(id="0", note="x")])))
    user.execute(f"ALTER TABLE lake.items ADD {rule}")
    bad = batch_of(ITEMS, [insert(id="1", note="canary"), insert(id="2", note="x")])
    with pytest.raises(ApplyRefusedError, match="SQLSTATE 23") as caught:
        lane.apply(group_of(2, batch_of(other, [insert(id="1")]), bad, row_count=size))
    assert caught.value.table == "public.items"
    assert "constraint" in str(caught.value)
    assert "canary" not in str(caught.value)
    assert items(user) == {0: "x"}
    assert user.execute("SELECT count(*) FROM lake.other").fetchone() == (0,)
    assert lane.progress().position == NumberedPosition(1).token()


def test_a_table_that_the_user_dropped_stops(lane, user, size):
    user.execute("DROP TABLE lake.items")
    with pytest.raises(ApplyRefusedError, match=r"42P01.*does not exist"):
        lane.apply(group_of(1, batch_of(ITEMS, [insert(id="1")]), row_count=size))


def test_a_source_that_fails_in_mid_group_leaves_nothing(lane, user):
    group = group_of(1, batch_of(ITEMS, [insert(id="1")]), row_count=LARGE)

    def broken(tables):
        yield from group.group.read(tables)
        raise SinkUnavailableError("gone")

    with pytest.raises(SinkUnavailableError, match="gone"):
        lane.apply(replace(group, group=replace(group.group, read=broken)))
    assert items(user) == {}
    lane.apply(group)
    assert items(user) == {1: None}


def test_a_lost_connection_is_retryable_and_the_lane_reconnects(lane, user, size):
    lane.apply(group_of(1, batch_of(ITEMS, [insert(id="1")]), row_count=size))
    killed = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cdc:shop'"
    assert user.execute(killed).fetchall() == [(True,)]
    with pytest.raises(SinkUnavailableError):
        lane.apply(group_of(2, batch_of(ITEMS, [insert(id="2")]), row_count=size))
    lane.apply(group_of(2, batch_of(ITEMS, [insert(id="2")]), row_count=size))
    assert items(user) == {1: None, 2: None}


def test_a_commit_whose_answer_was_lost_is_not_repeated(lane, user, size, monkeypatch):
    appended = schema_of("public.log", [("note", "text", Text())], key=(), identity=RowIdentity.APPEND)
    lane.prepare(appended, target_of(appended))
    commit = psycopg.Connection.commit

    def cut(connection):
        if connection.info.dsn and "cdc:shop" in connection.info.dsn and cut.armed:
            cut.armed = False
            commit(connection)
            if connection.pgconn.pipeline_status:
                connection._pipeline.sync()
            connection.close()
            raise psycopg.OperationalError("the connection is lost")
        commit(connection)

    cut.armed = False
    lane.progress()
    monkeypatch.setattr(psycopg.Connection, "commit", cut)
    cut.armed = True
    group = group_of(1, batch_of(appended, [insert(note="once")]), row_count=size)
    with pytest.raises(SinkUnavailableError):
        lane.apply(group)
    lane.apply(group)
    lane.apply(group_of(2, batch_of(appended, [insert(note="twice")]), row_count=size))
    assert user.execute("SELECT note FROM lake.log").fetchall() == [("once",), ("twice",)]


def test_a_row_that_a_user_holds_is_waited_for_and_then_retried(lane, user, lake_dsn, monkeypatch):
    lane.apply(group_of(1, batch_of(ITEMS, [insert(id="1", note="a")])))
    lane._connection.execute("SET lock_timeout = '50ms'")
    lane._connection.commit()
    with psycopg.connect(lake_dsn) as holder:
        holder.execute("UPDATE lake.items SET note = 'mine'")
        with pytest.raises(SinkUnavailableError, match="55P03"):
            lane.apply(group_of(2, batch_of(ITEMS, [update({"id": "1", "note": "b"})])))
    lane.apply(group_of(2, batch_of(ITEMS, [update({"id": "1", "note": "b"})])))
    assert items(user) == {1: "b"}


def test_commits_are_durable_on_return_whatever_the_role_says(sink, user, lane):
    user.execute("ALTER ROLE CURRENT_USER SET synchronous_commit = off")
    try:
        with closing(sink.lane("other")) as fresh:
            fresh.progress()
            assert fresh._connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
    finally:
        user.execute("ALTER ROLE CURRENT_USER RESET synchronous_commit")


def test_stages_that_were_not_used_for_long_are_dropped_and_made_again(lane, user, monkeypatch):
    monkeypatch.setattr("sinks.postgres.lane.MAX_STAGES", 1)
    other = schema_of("public.other")
    lane.prepare(other, target_of(other))
    for number in range(1, 4):
        changes = [update({"id": "1", "note": str(number)}), delete({"id": "2"})]
        both = [batch_of(schema, changes) for schema in (ITEMS, other)]
        lane.apply(group_of(number, *both, row_count=LARGE))
        stages = user.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'cdc\\_stage%' AND relkind = 'r'")
        assert stages.fetchone() == (1,)
    assert items(user) == {1: "3"}
    assert user.execute("SELECT id, note FROM lake.other").fetchall() == [(1, "3")]


def test_a_stage_made_in_a_group_that_failed_is_made_again(lane, user):
    good = batch_of(ITEMS, [update({"id": "1", "note": "a"})])
    bad = batch_of(ITEMS, [update({"id": "x", "note": "a"})])
    for number in range(1, 4):
        with pytest.raises(ApplyRefusedError, match="22P02"):
            lane.apply(group_of(number, good, bad, row_count=LARGE))
        lane.apply(group_of(number, good, row_count=LARGE))
    assert items(user) == {1: "a"}


def test_large_stages_are_emptied_between_batches(lane, user, monkeypatch):
    monkeypatch.setattr("sinks.postgres.writer.TRUNCATE_ROWS", 1)
    batches = [batch_of(ITEMS, [update({"id": str(i), "note": str(i)}), delete({"id": "9"})]) for i in range(4)]
    lane.apply(group_of(1, *batches, row_count=LARGE))
    assert items(user) == {i: str(i) for i in range(4)}


def test_targets_say_which_tables_are_written(lane, user):
    other = schema_of("public.other")
    group = group_of(1, batch_of(ITEMS, [insert(id="1")]), batch_of(other, [insert(id="1")]))
    lane.apply(replace(group, targets={ITEMS.table: TableId("lake", "items")}))
    assert items(user) == {1: None}
