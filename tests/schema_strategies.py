"""Any schema, for hypothesis: every logical type, with every field."""

from __future__ import annotations

from hypothesis import strategies as st

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
    LogicalType,
    Opaque,
    Range,
    RowIdentity,
    TableId,
    TableSchema,
    Text,
    Time,
    Timestamp,
    Uuid,
    Vector,
)

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
sizes = st.none() | st.integers(0, 2**31 - 1)
flags = st.booleans()

plain: dict[type, st.SearchStrategy[LogicalType]] = {
    Bool: st.just(Bool()),
    Int: st.builds(Int, st.sampled_from([8, 16, 24, 32, 64]), flags),
    Decimal: st.builds(Decimal, sizes, st.none() | st.integers(-1000, 1000)),
    Float: st.builds(Float, st.sampled_from([32, 64])),
    Text: st.builds(Text, sizes, flags),
    Bytes: st.builds(Bytes, sizes),
    Bits: st.builds(Bits, sizes, flags),
    Date: st.just(Date()),
    Time: st.builds(Time, flags, sizes),
    Timestamp: st.builds(Timestamp, flags, sizes),
    Interval: st.just(Interval()),
    Json: st.builds(Json, flags),
    Uuid: st.just(Uuid()),
    Enum: st.builds(Enum, names, st.lists(names, max_size=3).map(tuple)),
    Vector: st.builds(Vector, sizes),
    Geometry: st.builds(Geometry, sizes),
    Opaque: st.builds(Opaque, names),
}


def nested(inner: st.SearchStrategy[LogicalType]) -> dict[type, st.SearchStrategy[LogicalType]]:
    """Return the types that are made of ``inner``."""
    members = st.lists(st.tuples(names, inner), max_size=3).map(tuple)
    return {
        Array: st.builds(Array, inner),
        Range: st.builds(Range, names, inner, flags),
        Composite: st.builds(Composite, names, members),
    }


logical_types = st.recursive(st.one_of(*plain.values()), lambda inner: st.one_of(*nested(inner).values()), max_leaves=4)
by_kind = {**plain, **nested(logical_types)}
"""A strategy for each kind of logical type."""

columns = st.builds(Column, names, logical_types, names, flags, st.none() | st.integers(0, 3))
schemas = st.builds(
    TableSchema,
    st.builds(TableId, names, names),
    st.sampled_from(["postgres", "mysql"]),
    st.lists(columns, max_size=4).map(tuple),
    st.sampled_from(RowIdentity),
)
