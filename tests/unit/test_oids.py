"""What each PostgreSQL type means."""

from __future__ import annotations

import pytest

from cdc.schema import (
    Array,
    Bits,
    Bool,
    Bytes,
    Composite,
    Date,
    Decimal,
    Enum,
    Float,
    Geometry,
    Int,
    Interval,
    Json,
    LogicalType,
    Opaque,
    Range,
    Text,
    Time,
    Timestamp,
    Uuid,
    Vector,
)
from connectors.postgres.oids import TypeRow, resolve

OID = 70000


def base(name: str, *, schema: str = "pg_catalog", oid: int = OID) -> TypeRow:
    return TypeRow(
        oid=oid, nspname=schema, typname=name, typtype="b", text=name if schema == "pg_catalog" else f"{schema}.{name}"
    )


def made(oid: int, name: str, kind: str, **fields: object) -> TypeRow:
    return TypeRow(oid=oid, nspname="app", typname=name, typtype=kind, text=f"app.{name}", **fields)


def array_of(oid: int, element: int) -> TypeRow:
    return TypeRow(oid=oid, nspname="app", typname="_x", typtype="b", typelem=element, is_array=True, text="x[]")


def catalog(*rows: TypeRow) -> dict[int, TypeRow]:
    return {row.oid: row for row in rows}


NUMERIC, VARCHAR, INT4 = 1700, 1043, 23
BUILT_IN = catalog(base("numeric", oid=NUMERIC), base("varchar", oid=VARCHAR), base("int4", oid=INT4))


def numeric(precision: int, scale: int) -> int:
    """Return the modifier of numeric(precision, scale), as version 15 and later store it."""
    return (precision << 16 | scale & 0x7FF) + 4


@pytest.mark.parametrize(
    ("name", "modifier", "expected"),
    [
        ("bool", -1, Bool()),
        ("int2", -1, Int(16)),
        ("int4", -1, Int(32)),
        ("int8", -1, Int(64)),
        ("float4", -1, Float(32)),
        ("float8", -1, Float(64)),
        ("text", -1, Text()),
        ("bytea", -1, Bytes()),
        ("date", -1, Date()),
        ("json", -1, Json()),
        ("jsonb", -1, Json(binary=True)),
        ("uuid", -1, Uuid()),
        ("numeric", -1, Decimal()),
        ("numeric", 655366, Decimal(10, 2)),  # as a server sends it for numeric(10,2)
        ("numeric", numeric(1000, 1000), Decimal(1000, 1000)),
        ("numeric", numeric(5, 0), Decimal(5, 0)),
        ("numeric", numeric(2, -3), Decimal(2, -3)),
        ("numeric", numeric(1, -1000), Decimal(1, -1000)),
        ("numeric", numeric(3, 5), Decimal(3, 5)),
        ("varchar", -1, Text()),
        ("varchar", 259, Text(255)),
        ("bpchar", 14, Text(10, fixed=True)),
        ("bpchar", -1, Text()),
        ("bit", 8, Bits(8)),
        ("varbit", -1, Bits(varying=True)),
        ("varbit", 12, Bits(12, varying=True)),
        ("time", -1, Time()),
        ("time", 0, Time(precision=0)),
        ("timetz", 3, Time(with_zone=True, precision=3)),
        ("timestamp", 6, Timestamp(precision=6)),
        ("timestamptz", -1, Timestamp(with_zone=True)),
        ("interval", -1, Interval()),
        ("interval", 2147418115, Interval()),
        ("money", -1, Opaque("money")),
        ("inet", -1, Opaque("inet")),
        ("int2vector", -1, Opaque("int2vector")),
        ("oidvector", -1, Opaque("oidvector")),
        ("tsvector", -1, Opaque("tsvector")),
        ("xml", -1, Opaque("xml")),
    ],
)
def test_built_in_type_has_its_logical_type(name: str, modifier: int, expected: LogicalType) -> None:
    assert resolve(OID, modifier, catalog(base(name))) == expected


@pytest.mark.parametrize(
    ("name", "modifier", "expected"),
    [
        ("vector", 1536, Vector(1536)),
        ("vector", -1, Vector()),
        ("geometry", -1, Geometry()),
        ("geometry", 4326 << 8 | 1 << 2, Geometry(4326)),
        ("geometry", 1 << 2, Geometry()),
        ("citext", -1, Opaque("ext.citext")),
        ("hstore", -1, Opaque("ext.hstore")),
        ("int4", -1, Opaque("ext.int4")),
    ],
)
def test_extension_type_is_known_or_travels_as_text(name: str, modifier: int, expected: LogicalType) -> None:
    assert resolve(OID, modifier, catalog(base(name, schema="ext"))) == expected


def test_type_that_the_catalog_lacks_travels_as_text() -> None:
    assert resolve(4711, -1, {}) == Opaque("oid 4711")


def test_modifier_of_an_array_is_its_elements() -> None:
    types = BUILT_IN | catalog(array_of(OID, NUMERIC))
    assert resolve(OID, numeric(10, 2), types) == Array(Decimal(10, 2))


def test_domain_counts_as_what_it_is_based_on() -> None:
    positive = made(1, "positive", "d", typbasetype=NUMERIC, typtypmod=numeric(8, 2))
    nested = made(2, "price", "d", typbasetype=1)
    types = BUILT_IN | catalog(positive, nested)
    assert resolve(1, -1, types) == resolve(2, -1, types) == Decimal(8, 2)


def test_domain_over_an_array_is_an_array_and_so_is_an_array_of_domains() -> None:
    types = BUILT_IN | catalog(
        array_of(1, VARCHAR),
        made(2, "tags", "d", typbasetype=1, typtypmod=36),
        array_of(3, 4),
        made(4, "code", "d", typbasetype=VARCHAR, typtypmod=9),
    )
    assert resolve(2, -1, types) == Array(Text(32))
    assert resolve(3, -1, types) == Array(Text(5))


def test_enum_has_its_labels_in_order() -> None:
    mood = made(OID, "mood", "e", labels=["sad", "ok", "happy"])
    assert resolve(OID, -1, catalog(mood)) == Enum("app.mood", ("sad", "ok", "happy"))


def test_composite_has_its_attributes_however_deep() -> None:
    point = made(1, "point", "c", attribute_names=["x", "y"], attribute_types=[INT4] * 2, attribute_modifiers=[-1] * 2)
    path = made(
        3,
        "path",
        "c",
        attribute_names=["name", "points"],
        attribute_types=[VARCHAR, 2],
        attribute_modifiers=[24, -1],
    )
    types = BUILT_IN | catalog(point, array_of(2, 1), path)
    inner = Composite("app.point", (("x", Int(32)), ("y", Int(32))))
    assert resolve(3, -1, types) == Composite("app.path", (("name", Text(20)), ("points", Array(inner))))


def test_range_and_multirange_have_their_subtype() -> None:
    types = BUILT_IN | catalog(made(1, "prices", "r", subtype=NUMERIC), made(2, "prices_m", "m", subtype=NUMERIC))
    assert resolve(1, -1, types) == Range("app.prices", Decimal())
    assert resolve(2, -1, types) == Range("app.prices_m", Decimal(), multi=True)


def test_parts_are_the_types_that_must_be_read_too() -> None:
    assert array_of(1, VARCHAR).parts() == {VARCHAR}
    assert made(1, "d", "d", typbasetype=7).parts() == {7}
    assert made(1, "r", "r", subtype=8).parts() == {8}
    assert made(1, "c", "c", attribute_types=[7, 8, 7]).parts() == {7, 8}
    assert base("int2vector").parts() == set()
    assert TypeRow(oid=1, nspname="pg_catalog", typname="point", typtype="b", typelem=701).parts() == set()
