"""Schemas keep everything on their way through JSON, and have an id that says whether they are equal."""

from __future__ import annotations

from dataclasses import fields, replace

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schema_strategies import by_kind, schemas

from cdc.schema import (
    Array,
    Column,
    Decimal,
    Enum,
    Int,
    LogicalType,
    Opaque,
    RowIdentity,
    TableId,
    TableSchema,
    Text,
    schema_from_json,
    type_from_json,
    type_to_json,
)
from schema_registry.fingerprint import schema_id


def through_json(schema: TableSchema) -> TableSchema:
    return schema_from_json(orjson.loads(orjson.dumps(schema.to_json())))


def test_there_is_a_strategy_for_every_logical_type() -> None:
    assert set(by_kind) == set(LogicalType.__args__)


@pytest.mark.parametrize("kind", by_kind)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_logical_type_keeps_all_its_fields_through_json(kind: type, data: st.DataObject) -> None:
    node = data.draw(by_kind[kind])
    again = type_from_json(orjson.loads(orjson.dumps(type_to_json(node))))
    assert again == node
    assert type(again) is kind
    assert hash(again) == hash(node)


@settings(max_examples=60, deadline=None)
@given(schemas)
def test_a_schema_keeps_everything_through_json(schema: TableSchema) -> None:
    again = through_json(schema)
    assert again == schema
    assert hash(again) == hash(schema)
    assert isinstance(again.table, TableId)
    assert isinstance(again.identity, RowIdentity)


@settings(max_examples=100, deadline=None)
@given(schemas, schemas)
def test_ids_are_equal_exactly_for_equal_schemas(one: TableSchema, other: TableSchema) -> None:
    assert schema_id(through_json(one)) == schema_id(one)
    assert (schema_id(one) == schema_id(other)) == (one == other)


ID = Column("id", Int(32), "integer", nullable=False, key_ordinal=0)
NOTE = Column("note", Text(20), "character varying(20)")
SCHEMA = TableSchema(TableId("public", "orders"), "postgres", (ID, NOTE), RowIdentity.KEY)


def test_any_difference_gives_another_id() -> None:
    def noted(**change: object) -> TableSchema:
        return replace(SCHEMA, columns=(ID, replace(NOTE, **change)))

    different = [
        SCHEMA,
        replace(SCHEMA, table=TableId("public", "items")),
        replace(SCHEMA, table=TableId("sales", "orders")),
        replace(SCHEMA, dialect="mysql"),
        replace(SCHEMA, identity=RowIdentity.FULL_ROW),
        replace(SCHEMA, columns=(NOTE, ID)),
        replace(SCHEMA, columns=(ID,)),
        noted(name="Note"),
        noted(type=Text(21)),
        noted(type=Text(20, fixed=True)),
        noted(type=Opaque("text")),
        noted(type=Array(Text(20))),
        noted(source_type="text"),
        noted(nullable=False),
        noted(key_ordinal=1),
    ]
    changed = {field.name for field in fields(Column)} | {field.name for field in fields(TableSchema)}
    assert changed == {
        "name",
        "type",
        "source_type",
        "nullable",
        "key_ordinal",
        "table",
        "dialect",
        "columns",
        "identity",
    }
    assert len({schema_id(schema) for schema in different}) == len(different)


def test_an_id_is_the_same_in_every_process_and_version() -> None:
    """It is stored: whoever changes the JSON form has to keep the ids of what exists."""
    assert schema_id(SCHEMA) == "08590196bc055bbe"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Decimal(10, None), Decimal(None, 10)),
        (Enum("mood", ("a", "b")), Enum("mood", ("b", "a"))),
        (Int(32), Int(32, signed=False)),
        (Text(1), Opaque("text")),
    ],
)
def test_types_that_look_alike_have_different_json(one: LogicalType, other: LogicalType) -> None:
    assert type_to_json(one) != type_to_json(other)


def test_the_key_is_in_its_own_order() -> None:
    columns = tuple(
        Column(name, Int(32), "integer", key_ordinal=place) for name, place in (("a", 1), ("b", None), ("c", 0))
    )
    schema = replace(SCHEMA, columns=columns)
    assert schema.key == ("c", "a")
    assert schema.names == ("a", "b", "c")
    assert replace(SCHEMA, columns=(NOTE,)).key == ()


@given(st.text(), st.text().filter(lambda text: "." not in text))
def test_a_tables_name_is_read_back_where_its_schema_has_no_dot(name: str, schema: str) -> None:
    assert TableId.parse(str(TableId(schema, name))) == TableId(schema, name)
