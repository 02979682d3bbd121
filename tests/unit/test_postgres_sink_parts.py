"""The pure parts of the Postgres lake sink: types, DDL, encoding, statements, errors."""

from __future__ import annotations

import psycopg
import pyarrow as pa
import pytest
from sink_batches import UNCHANGED, batch_of, delete, insert, schema_of, target_of, truncate_of, update

from cdc.errors import (
    ApplyRefusedError,
    ConfigError,
    OperatorError,
    PrivilegeError,
    ServerSettingError,
    SinkUnavailableError,
)
from cdc.schema import (
    Array,
    Bits,
    Bool,
    Bytes,
    Column,
    Composite,
    Date,
    Decimal,
    Enum,
    Float,
    Geometry,
    Int,
    Interval,
    Json,
    Opaque,
    Range,
    RowIdentity,
    TableId,
    Text,
    Time,
    Timestamp,
    Uuid,
    Vector,
)
from sinks.postgres.ddl import LakeColumn, LakeTable, steps
from sinks.postgres.encoding import to_csv
from sinks.postgres.errors import translate
from sinks.postgres.quick import QuickSql
from sinks.postgres.sql import TableSql, literal
from sinks.postgres.types import LakeType, LakeTypes, bare_name, lake_type

LAKE = LakeTypes(
    builtin=frozenset({"int4", "numeric", "varchar", "bpchar", "timestamptz", "char", "daterange", "interval", "bit"}),
    base={"citext": ("public", "ext"), "vector": ("ext",)},
    enums={TableId("lake", "mood"): ("sad", "happy"), TableId("lake", "taken"): ("x",)},
    others=frozenset({TableId("lake", "pair"), TableId("lake", "shape")}),
)


@pytest.mark.parametrize(
    ("node", "ddl"),
    [
        (Bool(), "boolean"),
        (Int(8), "smallint"),
        (Int(8, signed=False), "smallint"),
        (Int(16), "smallint"),
        (Int(16, signed=False), "integer"),
        (Int(24), "integer"),
        (Int(24, signed=False), "integer"),
        (Int(32), "integer"),
        (Int(32, signed=False), "bigint"),
        (Int(64), "bigint"),
        (Int(64, signed=False), "numeric(20,0)"),
        (Decimal(), "numeric"),
        (Decimal(65, 30), "numeric(65,30)"),
        (Decimal(2000, 0), "numeric"),
        (Float(32), "real"),
        (Float(64), "double precision"),
        (Text(), "text"),
        (Text(160), "character varying(160)"),
        (Text(5, fixed=True), "character(5)"),
        (Text(4_294_967_295), "text"),
        (Bytes(16), "bytea"),
        (Bits(), "bit varying"),
        (Bits(8), "bit(8)"),
        (Bits(8, varying=True), "bit varying(8)"),
        (Date(), "date"),
        (Time(), "time without time zone"),
        (Time(with_zone=True, precision=3), "time(3) with time zone"),
        (Timestamp(precision=9), "timestamp(6) without time zone"),
        (Timestamp(with_zone=True), "timestamp with time zone"),
        (Interval(), "interval"),
        (Json(), "json"),
        (Json(binary=True), "jsonb"),
        (Uuid(), "uuid"),
        (Array(Int(32)), "integer[]"),
        (Vector(3), '"ext"."vector"(3)'),
    ],
)
def test_every_logical_type_of_another_dialect_has_a_lake_type(node, ddl):
    assert lake_type(Column("c", node, "whatever(1)"), "mysql", LAKE, "lake") == LakeType(ddl)


@pytest.mark.parametrize(
    ("source_type", "ddl"),
    [
        ("integer", "integer"),
        ("numeric(12,2)", "numeric(12,2)"),
        ("numeric(12,2)[]", "numeric(12,2)[]"),
        ("character varying(160)", "character varying(160)"),
        ("timestamp(3) with time zone", "timestamp(3) with time zone"),
        ("interval day to second(2)", "interval day to second(2)"),
        ('"char"', '"char"'),
        ('"bit"', '"bit"'),
        ("ext.citext", '"ext"."citext"'),
        ("elsewhere.citext", '"public"."citext"'),
        ("ext.vector(3)[]", '"ext"."vector"(3)[]'),
    ],
)
def test_types_of_postgres_are_taken_over_as_written(source_type, ddl):
    node = Array(Opaque(source_type[:-2])) if source_type.endswith("[]") else Opaque(source_type)
    assert lake_type(Column("c", node, source_type), "postgres", LAKE, "lake") == LakeType(ddl)


def test_a_domain_is_what_it_is_based_on():
    assert lake_type(Column("c", Decimal(5, 1), "public.price"), "postgres", LAKE, "lake").ddl == "numeric(5,1)"


@pytest.mark.parametrize(
    ("node", "source_type", "note"),
    [
        (Opaque("public.hstore"), "public.hstore", "no type public.hstore"),
        (Opaque("regclass"), "regclass", "names objects of the source"),
        (Array(Opaque("regtype")), "regtype[]", "its elements would be"),
        (Geometry(4326), "public.geometry(Point,4326)", "no type geometry"),
        (Enum("public.pair", ("a",)), "public.pair", "another kind of type"),
        (Composite("public.taken", ()), "public.taken", "an enum in the lake"),
        (Range("public.hrange", Opaque("public.hstore")), "public.hrange", "its bounds would be"),
    ],
)
def test_what_the_lake_lacks_is_text_and_says_why(node, source_type, note):
    found = lake_type(Column("c", node, source_type), "postgres", LAKE, "lake")
    assert found.ddl == "text"
    assert note in found.note


def test_enums_composites_and_ranges_are_made_in_the_copys_schema():
    def made(node):
        return lake_type(Column("c", node, ""), "postgres", LAKE, "lake")

    new = Enum('public."New Mood"', ("it's", "b\\"))
    assert made(new) == LakeType(
        '"lake"."New Mood"', ("""CREATE TYPE "lake"."New Mood" AS ENUM ('it''s',  E'b\\\\')""",)
    )
    wider = Enum("public.mood", ("first", "sad", "middle", "happy"))
    assert made(wider).creates == (
        """ALTER TYPE "lake"."mood" ADD VALUE 'first' BEFORE 'sad'""",
        """ALTER TYPE "lake"."mood" ADD VALUE 'middle' AFTER 'sad'""",
    )
    assert made(Composite("public.pair", (("x", Int(32)),))) == LakeType('"lake"."pair"')
    assert made(Composite("public.duo", (("x", Int(32)), ("m", new)))).creates == (
        *made(new).creates,
        'CREATE TYPE "lake"."duo" AS ("x" integer, "m" "lake"."New Mood")',
    )
    create = (
        'CREATE TYPE "lake"."floatrange" AS RANGE'
        ' (subtype = double precision, multirange_type_name = "lake"."floatmultirange")'
    )
    assert made(Range("public.floatrange", Float(64))) == LakeType('"lake"."floatrange"', (create,))
    assert made(Range("x.floatmultirange", Float(64), multi=True)) == LakeType('"lake"."floatmultirange"', (create,))
    assert made(Range("daterange", Date())) == LakeType("daterange")


@pytest.mark.parametrize(("text", "name"), [("public.mood", "mood"), ("mood", "mood"), ('"a.b"."c""d"', 'c"d')])
def test_a_types_bare_name_is_its_last_part(text, name):
    assert bare_name(text) == name


ITEMS = schema_of()
TYPES = {"id": LakeType("integer"), "note": LakeType("text", note="reasons")}
EXPECTED = {"id": (23, -1), "note": (25, -1)}
OURS = LakeTable(
    schema_exists=True,
    kind="r",
    owner=("shop", ITEMS.table),
    owned=frozenset({"id", "note"}),
    columns={"id": LakeColumn((23, -1), "integer"), "note": LakeColumn((25, -1), "text")},
    key=("id",),
)


def test_a_new_table_has_its_key_and_nullable_columns():
    made = steps("shop", ITEMS, target_of(ITEMS), types=TYPES, expected=EXPECTED, found=LakeTable())
    assert [step.sql for step in made] == [
        'CREATE SCHEMA "lake"',
        'CREATE TABLE "lake"."items" ("id" integer NOT NULL, "note" text, PRIMARY KEY ("id"))',
        (
            'COMMENT ON TABLE "lake"."items" IS \'Copy of shop public.items, kept by cdc;'
            " columns, indexes, views and triggers may be added'"
        ),
    ]
    assert made[1].summary == "table lake.items (note as text because reasons)"


def test_a_table_that_is_as_it_should_be_needs_nothing():
    assert steps("shop", ITEMS, target_of(ITEMS), types=TYPES, expected=EXPECTED, found=OURS) == []
    assert steps(None, ITEMS, target_of(ITEMS), types=TYPES, expected=EXPECTED, found=OURS) == []


def test_names_that_postgres_would_cut_off_are_refused():
    long = schema_of("public." + "ä" * 32)
    with pytest.raises(ApplyRefusedError, match="at most 63 bytes"):
        steps("shop", long, target_of(long), types=TYPES, expected=EXPECTED, found=LakeTable())


def test_csv_keeps_null_and_the_empty_string_apart():
    columns = {"a": pa.array(["", None, 'q"\n,\\.']), "b": pa.array(["1", "2", None], pa.string())}
    assert bytes(to_csv(columns)) == b'"","1"\n,"2"\n"q""\n,\\.",\n'


def test_literals_are_quoted_whatever_the_server_thinks_of_backslashes():
    assert literal("o'k") == "'o''k'"
    assert literal("a\\'b") == " E'a\\\\''b'"


def test_small_batches_become_one_statement_a_row():
    quick = QuickSql(
        TableSql(target=TableId("lake", "items"), columns=("id", "note"), key=("id",), stage="s"), RowIdentity.KEY
    )
    changes = [
        insert(id="1", note=None),
        update({"id": "1", "note": "n"}),
        update({"id": "1", "note": UNCHANGED}),
        update({"id": "2", "note": UNCHANGED}, {"id": "1"}),
        delete({"id": "2"}),
    ]
    made = quick.statements(batch_of(ITEMS, changes))
    assert [(text.split()[0], list(values)) for text, values in made] == [
        (b"INSERT", ["1", None]),
        (b"INSERT", ["1", "n"]),
        (b"WITH", ["2", "1"]),
        (b"DELETE", ["2"]),
    ]
    assert quick.statements(truncate_of(ITEMS)) == [(b'DELETE FROM "lake"."items"', ())]
    whole = update({"id": "2", "note": "n"}, {"id": "1", "note": "n"}, whole=True)
    assert quick.statements(batch_of(ITEMS, [whole, whole])) is None


def error_of(state: str) -> psycopg.Error:
    return psycopg.errors.lookup(state)("canary")


@pytest.mark.parametrize(
    ("state", "with_table", "without"),
    [
        ("08006", SinkUnavailableError, SinkUnavailableError),
        ("25006", SinkUnavailableError, SinkUnavailableError),
        ("40001", SinkUnavailableError, SinkUnavailableError),
        ("40P01", SinkUnavailableError, SinkUnavailableError),
        ("53100", SinkUnavailableError, SinkUnavailableError),
        ("53200", SinkUnavailableError, SinkUnavailableError),
        ("53300", SinkUnavailableError, SinkUnavailableError),
        ("55P03", SinkUnavailableError, SinkUnavailableError),
        ("57P01", SinkUnavailableError, SinkUnavailableError),
        ("57P03", SinkUnavailableError, SinkUnavailableError),
        ("22003", ApplyRefusedError, ServerSettingError),
        ("23505", ApplyRefusedError, ServerSettingError),
        ("42501", ApplyRefusedError, PrivilegeError),
        ("42P01", ApplyRefusedError, ServerSettingError),
        ("54000", ApplyRefusedError, ServerSettingError),
        ("P0001", ApplyRefusedError, ServerSettingError),
        ("28P01", ApplyRefusedError, PrivilegeError),
        ("3D000", ApplyRefusedError, ConfigError),
    ],
)
def test_every_kind_of_refusal_has_its_error(state, with_table, without):
    assert type(translate(error_of(state), table="public.items")) is with_table
    assert type(translate(error_of(state))) is without
    assert state in str(translate(error_of(state)))


def test_an_error_without_a_code_is_a_lost_connection_or_ours():
    assert isinstance(translate(psycopg.OperationalError("server closed the connection")), SinkUnavailableError)
    assert isinstance(translate(psycopg.ProgrammingError("no result")), OperatorError)


def test_no_message_holds_what_the_server_quotes():
    for state in ("22P02", "23505", "P0001"):
        assert "canary" not in str(translate(error_of(state), table="public.items"))
