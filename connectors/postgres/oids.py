"""What each PostgreSQL type means: from rows of pg_type to logical types. Pure.

Spec: PostgreSQL 18, "Data Types", https://www.postgresql.org/docs/18/datatype.html; type modifiers as ``format_type``
reads them in src/backend/utils/adt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeRow:
    """One row of pg_type, with what belongs to it in pg_enum, pg_range and pg_attribute.

    Attributes:
        typtype: b base, c composite, d domain, e enum, m multirange, r range.
        text: ``format_type`` without modifiers, qualified unless it is built in.
        subtype: of a range, or of a multirange's range; 0 otherwise.
    """

    oid: int
    nspname: str
    typname: str
    typtype: str
    typbasetype: int = 0
    typtypmod: int = -1
    typelem: int = 0
    is_array: bool = False
    text: str = ""
    labels: Sequence[str] = ()
    subtype: int = 0
    attribute_names: Sequence[str] = ()
    attribute_types: Sequence[int] = ()
    attribute_modifiers: Sequence[int] = field(default=())

    def parts(self) -> set[int]:
        """Return the oids of the types that this one is made of."""
        element = {self.typelem} if self.is_array else set()
        return {oid for oid in (*element, self.typbasetype, self.subtype, *self.attribute_types) if oid}


_PLAIN: dict[str, LogicalType] = {
    "bool": Bool(),
    "int2": Int(16),
    "int4": Int(32),
    "int8": Int(64),
    "float4": Float(32),
    "float8": Float(64),
    "text": Text(),
    "bytea": Bytes(),
    "date": Date(),
    "json": Json(),
    "jsonb": Json(binary=True),
    "uuid": Uuid(),
}


def resolve(oid: int, modifier: int, types: Mapping[int, TypeRow]) -> LogicalType:
    """Return the logical type of a column with this type and modifier.

    Domains count as what they are based on: their constraints are the source's to enforce.
    """
    row = types.get(oid)
    if row is None:
        return Opaque(f"oid {oid}")
    if row.typtype == "d":
        return resolve(row.typbasetype, row.typtypmod if modifier == -1 else modifier, types)
    if row.is_array:
        return Array(resolve(row.typelem, modifier, types))
    if row.typtype == "e":
        return Enum(row.text, tuple(row.labels))
    if row.typtype in "rm":
        return Range(row.text, resolve(row.subtype, -1, types), multi=row.typtype == "m")
    if row.typtype == "c":
        members = zip(row.attribute_names, row.attribute_types, row.attribute_modifiers, strict=True)
        return Composite(row.text, tuple((name, resolve(part, mod, types)) for name, part, mod in members))
    if row.nspname == "pg_catalog":
        return _builtin(row, modifier)
    return _extension(row, modifier)


def _builtin(row: TypeRow, modifier: int) -> LogicalType:
    plain = _PLAIN.get(row.typname)
    if plain is not None:
        return plain
    match row.typname:
        case "numeric":
            return _numeric(modifier)
        case "varchar":
            return Text(None if modifier < 0 else modifier - 4)
        case "bpchar":
            return Text(None if modifier < 0 else modifier - 4, fixed=modifier >= 0)
        case "bit" | "varbit":
            return Bits(None if modifier < 0 else modifier, varying=row.typname == "varbit")
        case "time" | "timetz":
            return Time(row.typname == "timetz", None if modifier < 0 else modifier)
        case "timestamp" | "timestamptz":
            return Timestamp(row.typname == "timestamptz", None if modifier < 0 else modifier)
        case "interval":
            return Interval()
        case _:
            return Opaque(row.text)


def _numeric(modifier: int) -> Decimal:
    """Read ``((precision << 16) | (scale & 0x7ff)) + 4``; the scale is an 11-bit signed number since version 15."""
    if modifier < 4:
        return Decimal()
    packed = modifier - 4
    scale = packed & 0x7FF
    return Decimal(packed >> 16 & 0xFFFF, scale - 0x800 if scale & 0x400 else scale)


def _extension(row: TypeRow, modifier: int) -> LogicalType:
    if row.typname == "vector":
        return Vector(None if modifier < 0 else modifier)
    if row.typname == "geometry":
        srid = modifier >> 8 & 0x1FFFFF if modifier >= 0 else 0
        return Geometry(srid or None)
    return Opaque(row.text)
