"""Every built-in type with its edge values: copied, streamed and updated, it is in the lake what it is at the source.

The judge is the server's own text output on both sides, under fixed settings. Each case arrives five times: in a row
that was there before the start, in one inserted by a large transaction, in one set by a small update, as an old image
under REPLICA IDENTITY FULL, and in an array of its type where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from fix_engine import EngineHarness, value

pytestmark = pytest.mark.servers

Connection = psycopg.Connection[Any]

TYPES = """
CREATE TYPE mood AS ENUM ('glad', 'sad', 'with space', 'with ''quote', 'with "double"', 'with,comma', '', '🐘');
CREATE TYPE "Odd Enum" AS ENUM ('A', 'a');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN price AS numeric(12, 2);
CREATE DOMAIN costly AS price CHECK (VALUE > 100);
CREATE TYPE address AS (street text, "House No" int, tags text[]);
CREATE TYPE person AS (name text, home address, moods mood[], born date);
CREATE DOMAIN known_address AS address CHECK ((VALUE).tags IS NULL);
CREATE TYPE floatrange AS RANGE (subtype = float8);
CREATE TYPE textrange AS RANGE (subtype = text, multirange_type_name = many_texts);
"""

TEXTS = [
    "''", "' '", "'NULL'", "E'\\\\N'", "E'\\\\'", "E'\\\\.'", "E'a\\tb'", "E'a\\nb'", "E'a\\r\\nb'", "E'\\b\\f\\v'",
    "'\"'", "''''", "','", "'🐘 Jürgen'", "U&'\\FB03 e\\0301'", "U&'\\FEFF'", "U&'\\FFFF'", "chr(1)", "chr(127)",
    "repeat('long ', 5000)",
]  # fmt: skip

CASES: dict[str, list[str]] = {
    "boolean": ["true", "false"],
    "smallint": ["-32768", "0", "32767"],
    "integer": ["-2147483648", "0", "2147483647"],
    "bigint": ["-9223372036854775808", "0", "9223372036854775807"],
    "numeric": [
        "0", "'-0'", "'NaN'", "'Infinity'", "'-Infinity'", "0.000", "1e-16383", "repeat('9', 131072)::numeric",
        "('0.' || repeat('123456789', 1820))::numeric", "-12345678901234567890.0123456789", "1e20", "100", "100.00",
    ],
    "numeric(12,2)": ["0", "-9999999999.99", "9999999999.99", "0.01", "'NaN'"],
    "numeric(5,-2)": ["12300", "-9999900"],
    "numeric(3,5)": ["0.00999", "-0.00001"],
    "real": [
        "'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "0.1", "1e-45", "3.4028235e38", "16777217", "1.17549435e-38",
    ],
    "double precision": [
        "'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "0.1", "5e-324", "1.7976931348623157e308", "1e15", "1e16",
        "0.30000000000000004", "2.2250738585072014e-308",
    ],
    "money": ["'-92233720368547758.08'", "'92233720368547758.07'", "0", "'-0.01'", "'1,234.50'"],
    "text": TEXTS,
    "character varying": TEXTS,
    "character varying(10)": ["''", "'äöüäöüäöüä'", "'🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘'"],
    "character(5)": ["''", "'a'", "'abcde'", "'  x'", "'äöü'"],
    "bpchar": ["''", "'a  '", "'abc'"],
    "name": ["''", "repeat('n', 63)::name", "'with \"quote'"],
    '"char"': ["''", "'a'", "'\\'", "'\\377'", "'\\200'", "' '", "','"],
    "bytea": ["''", "'\\x00'", "'\\x00ff00'", "'\\xdeadbeef'", "decode(repeat('5c4e0a00ff', 4000), 'hex')", "'\\x5c'"],
    "date": [
        "'4713-01-01 BC'", "'0001-12-31 BC'", "'0001-01-01'", "'2024-02-29'", "'5874897-12-31'", "'infinity'",
        "'-infinity'",
    ],
    "time": ["'00:00'", "'24:00'", "'23:59:59.999999'", "'00:00:00.000001'"],
    "time(2)": ["'12:34:56.78'", "'24:00'"],
    "time with time zone": [
        "'00:00+00'", "'24:00+15:59'", "'23:59:59.999999-15:59'", "'12:00+05:30'", "'12:00:00+01:02:03'",
    ],
    "timestamp": [
        "'4713-01-01 00:00:00 BC'", "'0001-01-01 00:00:00.000001 BC'", "'294276-12-31 23:59:59.999999'", "'infinity'",
        "'-infinity'", "'1970-01-01'", "'1999-12-31 23:59:59.999999'", "'2000-01-01 00:00:00.1'",
    ],
    "timestamp(3)": ["'2024-01-01 00:00:00.123'"],
    "timestamp with time zone": [
        "'4713-01-01 00:00:00+00 BC'", "'294276-12-31 23:59:59.999999+00'", "'infinity'", "'-infinity'",
        "'2024-03-31 02:30:00 Europe/Vienna'", "'1890-01-01 00:00:00 Europe/Amsterdam'", "'2024-01-01 00:00:00+05:45'",
    ],
    "interval": [
        "'0'", "'1 year -2 months +3 days -04:05:06.789'", "'-178000000 years'", "'178000000 years'",
        "'-00:00:00.000001'", "'-1 days +24:00'", "'1 month -30 days'", "make_interval(secs => 9223372036854)",
    ],
    "interval(2)": ["'1.23 seconds'"],
    "interval year to month": ["'3 years 2 months'", "'-1 year'"],
    "interval day to second(3)": ["'3 days 01:02:03.456'"],
    "uuid": [
        "'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
        "'{A0EEBC99-9C0B4EF8-BB6D6BB9-BD380A11}'",
    ],
    "json": [
        "E'{\"b\" :  1,\\n \"a\":2, \"a\" : 3}'", "'null'", "'  [1 ,2]  '", "'\"\\u00e9\\\\ud83d\"'", "'1e400'",
        "'\"a\\tb\"'",
    ],
    "jsonb": [
        "'{\"b\": 1, \"a\": [null, true, 1.50, \"\\u00e9 🐘\"]}'", "'null'", "'1.000'", "'12345678901234567890.123'",
        "'\"\"'", "'{}'",
    ],
    "jsonpath": ["'$.a[*] ? (@.b > 1)'", "'lax $'"],
    "bit(8)": ["'00000000'", "'10101010'"],
    "bit": ["'0'", "'1'"],
    "bit varying": ["''", "'1'", "repeat('10', 500)::varbit"],
    "bit varying(5)": ["'10101'", "''"],
    "inet": ["'0.0.0.0'", "'10.1.2.3/8'", "'::1'", "'fe80::1/64'", "'::ffff:1.2.3.4'", "'255.255.255.255/0'"],
    "cidr": ["'10.0.0.0/8'", "'::/0'", "'2001:db8::/32'", "'192.168.1.1/32'"],
    "macaddr": ["'08:00:2b:01:02:03'", "'ffffffffffff'"],
    "macaddr8": ["'08:00:2b:01:02:03:04:05'", "'0800.2b01.0203'"],
    "point": ["'(0,-0)'", "'(NaN,Infinity)'", "'(0.1,1e300)'"],
    "line": ["'{1,-1,0}'", "'{0,1,-0.5}'"],
    "lseg": ["'[(0,0),(1,-1)]'"],
    "box": ["'(1,2),(-3,-4)'", "'(0,0),(0,0)'"],
    "path": ["'[(0,0),(1,1),(2,0)]'", "'((0,0),(1,1),(2,0))'"],
    "polygon": ["'((0,0),(1,1),(2,0))'", "'((0.1,0.2))'"],
    "circle": ["'<(1,2),3>'", "'<(0,0),0>'"],
    "tsvector": ["''", "'fat:2A cat:1,3B ''odd word'':4 ''it''''s'''", "to_tsvector('simple', 'The 🐘 and E=mc2')"],
    "tsquery": ["''", "'fat & (rat | !cat:AB) <-> ''odd word''':: tsquery", "'a:*'"],
    "oid": ["0", "4294967295"],
    "xid": ["'0'", "'4294967295'"],
    "xid8": ["'0'", "'18446744073709551615'"],
    "cid": ["'7'"],
    "tid": ["'(0,1)'", "'(4294967295,65535)'"],
    "pg_lsn": ["'0/0'", "'FFFFFFFF/FFFFFFFF'"],
    "pg_snapshot": ["'10:20:10,14,15'"],
    "txid_snapshot": ["'10:20:10,14,15'"],
    "int2vector": ["'1 2 -3'", "''"],
    "oidvector": ["'1 2 4294967295'"],
    "refcursor": ["'a cursor'"],
    "int4range": ["'empty'", "'(,)'", "'[1,10)'", "'(5,)'", "'[-2147483648,2147483647)'"],
    "int8range": ["'[1,2)'", "'(,9223372036854775807)'"],
    "numrange": ["'[1.50,2.500]'", "'(,0)'", "'empty'"],
    "daterange": ["'[0044-03-15 BC,2024-02-29)'", "'[infinity,)'", "'(-infinity,infinity)'"],
    "tsrange": ["'[2024-01-01 00:00:00.000001,2024-01-02)'", "'[-infinity,infinity]'"],
    "tstzrange": ["'[2024-01-01 00:00:00+05:30,)'"],
    "int4multirange": ["'{}'", "'{[1,2),[5,9)}'", "'{(,)}'"],
    "nummultirange": ["'{[1.0,2.00),(5,)}'"],
    "tstzmultirange": ["'{[2024-01-01 00:00:00+00,2024-02-01 00:00:00+00)}'"],
    "datemultirange": ["'{[0044-03-15 BC,2024-02-29)}'"],
    "mood": ["'glad'", "'with space'", "'with ''quote'", "'with \"double\"'", "'with,comma'", "''", "'🐘'"],
    '"Odd Enum"': ["'A'", "'a'"],
    "positive": ["1", "2147483647"],
    "price": ["-1.50", "'NaN'"],
    "costly": ["100.01"],
    "address": [
        "ROW(NULL, NULL, NULL)", "ROW('', 0, '{}')", "ROW('a \"b\", (c)\\', -1, ARRAY['x,y', NULL, 'NULL', ''])",
    ],
    "person": [
        "ROW('Ada', ROW('St. 1', 7, ARRAY['a b', '\"']), ARRAY['glad', 'with,comma']::mood[], '0044-03-15 BC')",
        "ROW(NULL, ROW(NULL, 1, NULL), '{}', 'infinity')",
    ],
    "known_address": ["ROW('known', 1, NULL)"],
    "floatrange": ["'[0.1,1e300)'", "'empty'", "'[-Infinity,NaN]'"],
    "floatmultirange": ["'{[0.1,0.2),(5,)}'"],
    "textrange": ["'[\"a b\",\"c,d\")'", "'(,\"\"]'"],
    "many_texts": ["'{[a,b),[\"x y\",z]}'"],
    "integer[]": [
        "'{}'", "'{NULL}'", "'{1,NULL,-3}'", "'{{1,2},{NULL,4}}'", "'[0:1][-1:0]={{1,2},{3,4}}'", "'{{{1}},{{2}}}'",
    ],
    "text[]": [
        "'{}'", "'{\"\"}'", "'{\"NULL\",NULL}'", "ARRAY['a,b', 'c\"d', E'e\\\\f', '{g}', ' h ', E'i\\nj', '🐘']",
    ],
    "numeric(12,2)[]": ["'{1.50,NaN,NULL}'"],
    "box[]": ["'{(1,1),(0,0);(2,2),(1,1)}'"],
    "character(3)[]": ["'{a,\"b \",abc}'"],
    "regclass": ["'pg_class'", "'pg_type'"],
    "regtype": ["'integer'", "'text'"],
    "aclitem": ["'=r/postgres'"],
}  # fmt: skip

AS_TEXT = {"regclass", "regtype", "aclitem"}
"""Types whose values mean something at the source only."""

NO_ARRAY = {"regclass", "regtype", "aclitem", "int2vector", "oidvector", "numeric", "text", "character varying"}
"""Types whose arrays would repeat what is tested, or make rows of megabytes."""

CONTRIB: dict[str, tuple[str, list[str]]] = {
    "citext": ("citext", ["'MiXed'", "''", "'ÄÖ'"]),
    "hstore": ("hstore", ["''", '\'a=>1, "b c"=>NULL, "q\\""=>"\\\\"\'']),
    "ltree": ("ltree", ["'Top.Science.Astronomy'", "''"]),
    "lquery": ("ltree", ["'*.foo@*.!bar{1,2}'"]),
    "cube": ("cube", ["'(1,2,3),(4,5,6)'", "'(0)'"]),
    "seg": ("seg", ["'1.50 .. 2.5'", "'~6.5'"]),
    "isbn13": ("isn", ["'978-0-393-04002-9'"]),
    "vector": ("vector", ["'[1,-2.5,1e-3]'"]),
    "vector(2)": ("vector", ["'[0.1,3]'"]),
}

CASE_COUNT = 315
"""Values in ``CASES``; a case that is lost by an edit must be noticed."""


def table_of(index: int) -> str:
    return f"type_{index:03}"


def create(source: Connection, types: Sequence[str]) -> None:
    for index, name in enumerate(types):
        array = f", a {name}[]" if has_array(name) else ""
        source.execute(f"CREATE TABLE {table_of(index)} (id int PRIMARY KEY, v {name}{array})".encode())
        source.execute(f"CREATE TABLE {table_of(index)}_full (id int PRIMARY KEY, v {name})".encode())
        source.execute(f"ALTER TABLE {table_of(index)}_full REPLICA IDENTITY FULL".encode())


def has_array(name: str) -> bool:
    return name not in NO_ARRAY and not name.endswith("[]")


def insert(source: Connection, index: int, name: str, values: Sequence[str], first: int) -> None:
    for offset, literal in enumerate(values):
        array = f", ARRAY[({literal})::{name}, NULL, ({literal})::{name}]::{name}[]" if has_array(name) else ""
        source.execute(f"INSERT INTO {table_of(index)} SELECT {first + offset}, ({literal})::{name}{array}".encode())
        source.execute(f"INSERT INTO {table_of(index)}_full SELECT {first + offset}, ({literal})::{name}".encode())
    source.execute(f"INSERT INTO {table_of(index)} (id) VALUES ({first + 500})".encode())


def update(source: Connection, index: int, name: str, values: Sequence[str], first: int) -> None:
    for offset, literal in enumerate(values):
        source.execute(f"INSERT INTO {table_of(index)} (id) VALUES ({first + offset})".encode())
        source.execute(f"UPDATE {table_of(index)} SET v = ({literal})::{name} WHERE id = {first + offset}".encode())
    source.execute(f"UPDATE {table_of(index)}_full SET id = id + 5000, v = NULL WHERE id % 2 = 0".encode())
    source.execute(f"DELETE FROM {table_of(index)}_full WHERE id % 3 = 0".encode())
    source.execute(f"UPDATE {table_of(index)} SET v = NULL WHERE id = {first}".encode())


def goes_round(engine: EngineHarness, source: Connection, cases: dict[str, list[str]]) -> None:
    create(source, list(cases))
    for index, (name, values) in enumerate(cases.items()):
        insert(source, index, name, values, 1)
    engine.start(ready=False)
    engine.process.wait_until_ready(60)
    with source.transaction():
        for index, (name, values) in enumerate(cases.items()):
            insert(source, index, name, values, 1001)
    for index, (name, values) in enumerate(cases.items()):
        update(source, index, name, values, 2001)
    engine.wait_until_identical(timeout=90)


def types_in(connection: Connection, schema: str) -> dict[str, str]:
    rows = connection.execute(
        "SELECT relname, format_type(atttypid, atttypmod) FROM pg_attribute JOIN pg_class c ON c.oid = attrelid"
        " WHERE relnamespace = %s::regnamespace AND attname = 'v' AND relkind = 'r'",
        [schema],
    )
    return dict(rows.fetchall())


@pytest.mark.all_versions
def test_every_built_in_type_goes_round(engine: EngineHarness, source: Connection, lake: Connection) -> None:
    assert sum(map(len, CASES.values())) == CASE_COUNT
    source.execute(TYPES)
    cases = {name: list(values) for name, values in CASES.items()}
    if source.info.server_version >= 170000:
        cases["interval"] += ["'infinity'", "'-infinity'"]
    goes_round(engine, source, cases)
    rows = sum(value(lake, f"SELECT count(v) FROM lake.{table_of(i)}") for i in range(len(cases)))
    assert rows == sum(3 * len(values) - 1 for values in cases.values())

    kept, made = types_in(source, "public"), types_in(lake, "lake")
    base = {"positive": "integer", "price": "numeric(12,2)", "costly": "numeric(12,2)", "known_address": "lake.address"}
    for index, name in enumerate(cases):
        expected = "text" if name in AS_TEXT else base.get(name, kept[table_of(index)])
        assert made[table_of(index)].removeprefix("lake.") == expected.removeprefix("lake."), name


def test_types_of_extensions_that_the_lake_has_go_round(
    engine: EngineHarness, source: Connection, lake: Connection
) -> None:
    for extension in dict.fromkeys(extension for extension, _ in CONTRIB.values()):
        for connection in (source, lake):
            connection.execute(f"CREATE EXTENSION {extension}".encode())
    goes_round(engine, source, {name: values for name, (_, values) in CONTRIB.items()})
    assert types_in(lake, "lake") == types_in(source, "public")


def test_types_of_extensions_that_the_lake_lacks_arrive_as_text_and_the_plan_says_so(
    engine: EngineHarness, source: Connection, lake: Connection
) -> None:
    for extension in dict.fromkeys(extension for extension, _ in CONTRIB.values()):
        source.execute(f"CREATE EXTENSION {extension}".encode())
    cases = {name: values for name, (_, values) in CONTRIB.items()}
    create(source, list(cases))
    planned = engine.cdc("plan").stdout
    assert "v as text because" in planned
    assert "the lake has no type" in planned
    for index in range(len(cases)):
        source.execute(f"DROP TABLE {table_of(index)}, {table_of(index)}_full".encode())
    goes_round(engine, source, cases)
    assert set(types_in(lake, "lake").values()) == {"text"}


@pytest.mark.all_versions
def test_xml_goes_round_where_it_is_built_in(engine: EngineHarness, source: Connection) -> None:
    try:
        source.execute("SELECT '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("not here: this server is built without XML")
    documents = ["'<a>1</a>'", "'text <b/> mixed'", "'<?xml version=\"1.0\"?><ä/>'", "''"]
    goes_round(engine, source, {"xml": documents})


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("numeric", "1.0", "1.00"),
        ("double precision", "'-0'", "'0'"),
        ("text", "'a'", "'a '"),
        ("character(5)", "'a'", "'b'"),
        ("citext", "'Name'", "'NAME'"),
        ("bytea", "'\\x00'", "'\\x0000'"),
        ("timestamptz", "'infinity'", "'-infinity'"),
        ("jsonb", "'1.0'", "'1.00'"),
        ("interval", "'1 month'", "'30 days'"),
        ("time with time zone", "'12:00+00'", "'13:00+01'"),
    ],
    ids=lambda value: str(value).split("(")[0],
)
def test_keys_that_are_equal_but_not_the_same_keep_what_the_source_has(
    engine: EngineHarness, source: Connection, lake: Connection, name: str, before: str, after: str
) -> None:
    """An update may change how a key is written without changing what it equals: 1.0 becomes 1.00."""
    if name == "citext":
        for connection in (source, lake):
            connection.execute("CREATE EXTENSION citext")
    source.execute(f"CREATE TABLE item (k {name} PRIMARY KEY, note text)".encode())
    source.execute(f"INSERT INTO item VALUES ({before}, 'before')".encode())
    engine.start()
    engine.wait_until_identical()
    source.execute(f"UPDATE item SET k = {after}".encode())
    engine.wait_until_identical()
    with source.transaction():
        source.execute(f"UPDATE item SET k = {before}, note = 'in a larger group'".encode())
        source.execute("CREATE TEMPORARY TABLE aside AS SELECT 1")
        source.execute("UPDATE item SET note = note || '!'")
        source.execute(f"UPDATE item SET k = {after}".encode())
        source.execute(f"DELETE FROM item WHERE k = {after}; INSERT INTO item VALUES ({before}, 'again')".encode())
    engine.wait_until_identical()
