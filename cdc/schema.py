"""Tables as every connector describes them and every sink reads them: names, columns, logical types.

The logical types are a closed set. A sink maps each of them once; what no logical type describes is ``Opaque`` with the
source's own type text, and travels as text. All nodes are frozen, hashable, and have one JSON form (``to_json`` /
``schema_from_json``), from which the schema registry derives a schema's id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, NamedTuple


class TableId(NamedTuple):
    """A table's name at its source or in the lake."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @classmethod
    def parse(cls, text: str) -> TableId:
        """Read ``schema.name``; the first dot divides, so a table's name may hold more."""
        schema, _, name = text.partition(".")
        return cls(schema, name)


@dataclass(frozen=True, slots=True)
class Bool:
    """Canonical text: ``t`` or ``f``."""


@dataclass(frozen=True, slots=True)
class Int:
    """A whole number of ``bits`` (8, 16, 24, 32 or 64). Canonical text: decimal digits with an optional ``-``."""

    bits: int
    signed: bool = True


@dataclass(frozen=True, slots=True)
class Decimal:
    """An exact number; ``precision`` None: unbounded. Canonical text: digits, ``NaN``, ``Infinity``, ``-Infinity``."""

    precision: int | None = None
    scale: int | None = None


@dataclass(frozen=True, slots=True)
class Float:
    """A binary floating-point number of 32 or 64 bits. Canonical text: the shortest that reads back the same."""

    bits: int


@dataclass(frozen=True, slots=True)
class Text:
    """Characters. ``fixed``: padded with blanks to ``max_length``, which counts characters; None: unbounded."""

    max_length: int | None = None
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Bytes:
    r"""Octets. Canonical text: ``\x`` and two lower-case hex digits an octet."""

    max_length: int | None = None


@dataclass(frozen=True, slots=True)
class Bits:
    """A string of 0 and 1. Canonical text: the digits."""

    length: int | None = None
    varying: bool = False


@dataclass(frozen=True, slots=True)
class Date:
    """A calendar day. Canonical text: ISO 8601, ``BC`` appended before year 1, or ``infinity``, ``-infinity``."""


@dataclass(frozen=True, slots=True)
class Time:
    """A time of day up to 24:00:00. ``precision``: digits of the second's fraction, None for 6."""

    with_zone: bool = False
    precision: int | None = None


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A date and time. With a zone the canonical text is in UTC and ends in ``+00``."""

    with_zone: bool = False
    precision: int | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """Months, days and microseconds. Canonical text: Postgres' IntervalStyle ``postgres``."""


@dataclass(frozen=True, slots=True)
class Json:
    """A JSON document. ``binary``: the source normalises it (jsonb); otherwise its text is kept as written."""

    binary: bool = False


@dataclass(frozen=True, slots=True)
class Uuid:
    """Canonical text: 36 characters, lower case."""


@dataclass(frozen=True, slots=True)
class Enum:
    """One of ``labels``, in the source's order; ``name`` is the type's own, qualified where it has a schema."""

    name: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Array:
    """Any number of dimensions of ``element``. Canonical text: Postgres' array literal."""

    element: LogicalType


@dataclass(frozen=True, slots=True)
class Range:
    """A range (or, ``multi``, a set of ranges) over ``subtype``. Canonical text: Postgres' range literal."""

    name: str
    subtype: LogicalType
    multi: bool = False


@dataclass(frozen=True, slots=True)
class Composite:
    """A row type. Canonical text: Postgres' row literal."""

    name: str
    attributes: tuple[tuple[str, LogicalType], ...]


@dataclass(frozen=True, slots=True)
class Vector:
    """A fixed number of floats. Canonical text: ``[1,2,3]``."""

    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class Geometry:
    """A shape. Canonical text: hex EWKB."""

    srid: int | None = None


@dataclass(frozen=True, slots=True)
class Opaque:
    """Whatever no other node describes; its text is the source's own."""

    source_type: str


LogicalType = (
    Bool
    | Int
    | Decimal
    | Float
    | Text
    | Bytes
    | Bits
    | Date
    | Time
    | Timestamp
    | Interval
    | Json
    | Uuid
    | Enum
    | Array
    | Range
    | Composite
    | Vector
    | Geometry
    | Opaque
)

_TYPES: dict[str, type[Any]] = {node.__name__.lower(): node for node in LogicalType.__args__}


class RowIdentity(StrEnum):
    """How a row of the copy is found again when the source changes it."""

    KEY = "key"
    """By the key columns."""
    FULL_ROW = "full_row"
    """No key, but the source sends the whole old row: one of the equal rows is changed."""
    APPEND = "append"
    """Neither: only inserts and truncates are replicated."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        key_ordinal: place in the key, from 0; None outside it.
        source_type: the source's own type text, with its modifiers, as in ``numeric(12,2)``.
    """

    name: str
    type: LogicalType
    source_type: str
    nullable: bool = True
    key_ordinal: int | None = None


@dataclass(frozen=True, slots=True)
class TableSchema:
    """One version of one table.

    Attributes:
        dialect: the connector's word for its type language, as in ``postgres``; it says how to read ``source_type``.
        columns: in the order of the wire and of the initial copy.
    """

    table: TableId
    dialect: str
    columns: tuple[Column, ...]
    identity: RowIdentity

    @property
    def key(self) -> tuple[str, ...]:
        """Names of the key columns in key order; empty without a key."""
        keyed = [(c.key_ordinal, c.name) for c in self.columns if c.key_ordinal is not None]
        return tuple(name for _, name in sorted(keyed))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns in order."""
        return tuple(c.name for c in self.columns)

    def to_json(self) -> dict[str, Any]:
        """Return plain lists, dicts and scalars; ``schema_from_json`` reads them back."""
        return {
            "table": [self.table.schema, self.table.name],
            "dialect": self.dialect,
            "identity": self.identity.value,
            "columns": [
                {
                    "name": c.name,
                    "type": type_to_json(c.type),
                    "source_type": c.source_type,
                    "nullable": c.nullable,
                    "key_ordinal": c.key_ordinal,
                }
                for c in self.columns
            ],
        }


def schema_from_json(data: Mapping[str, Any]) -> TableSchema:
    """Read what ``TableSchema.to_json`` wrote."""
    return TableSchema(
        table=TableId(*data["table"]),
        dialect=data["dialect"],
        identity=RowIdentity(data["identity"]),
        columns=tuple(Column(**{**c, "type": type_from_json(c["type"])}) for c in data["columns"]),
    )


def type_to_json(node: LogicalType) -> dict[str, Any]:
    """Return the node's class name and fields as plain values."""
    return {"is": type(node).__name__.lower(), **{f.name: _plain(getattr(node, f.name)) for f in fields(node)}}


def type_from_json(data: Mapping[str, Any]) -> LogicalType:
    """Read what ``type_to_json`` wrote."""
    arguments = {name: _node(value) for name, value in data.items() if name != "is"}
    node: LogicalType = _TYPES[data["is"]](**arguments)
    return node


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return type_to_json(value) if isinstance(value, LogicalType) else value


def _node(value: Any) -> Any:
    if isinstance(value, Mapping):
        return type_from_json(value)
    return tuple(_node(item) for item in value) if isinstance(value, list) else value
