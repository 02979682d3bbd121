"""Which type a column has in the lake. Pure: a column and what the lake has in, DDL text out.

A source of dialect ``postgres`` names its types itself, and they are taken over as written where the lake has them:
``numeric(12,2)``, ``character varying(160)``, ``public.citext`` wherever that extension lives in the lake. Enums,
composites and ranges are made in the copy's own schema. For every other dialect the logical type decides. What the
lake can't hold as what it is becomes text, and says why.

Spec: PostgreSQL 18, "Data Types", https://www.postgresql.org/docs/18/datatype.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
    TableId,
    Text,
    Time,
    Timestamp,
    Uuid,
    Vector,
)
from sinks.postgres.sql import identifier, literal, table_name

MAX_VARCHAR = 10_485_760
"""The longest n of varchar(n)."""

MAX_PRECISION = 1000
"""The largest precision of numeric(p,s) that may be declared."""

_ALIASES = {
    "bigint": "int8",
    "bit varying": "varbit",
    "boolean": "bool",
    "character varying": "varchar",
    "character": "bpchar",
    "decimal": "numeric",
    "double precision": "float8",
    "integer": "int4",
    "real": "float4",
    "smallint": "int2",
    "time with time zone": "timetz",
    "time without time zone": "time",
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
}
"""Names that the grammar knows, by their name in pg_type."""

_UNPORTABLE = {
    "aclitem": "its roles are the source's",
    "gtsvector": "it can't be read back",
    "pg_node_tree": "it can't be read back",
    **dict.fromkeys(
        (
            "regclass",
            "regcollation",
            "regconfig",
            "regdictionary",
            "regnamespace",
            "regoper",
            "regoperator",
            "regproc",
            "regprocedure",
            "regrole",
            "regtype",
        ),
        "it names objects of the source",
    ),
}
"""Built-in types whose text means something at the source only."""

_QUALIFIED = re.compile(r'(?:("(?:[^"]|"")+"|[^".]+)\.)?("(?:[^"]|"")+"|[^"]+)')
_MODIFIERS = re.compile(r"\s*\([^()]*\)")
_INTERVAL_FIELDS = re.compile(r"interval (year|month|day|hour|minute|second)\b.*")


@dataclass(frozen=True, slots=True)
class LakeTypes:
    """The types that the lake has.

    Attributes:
        builtin: names of those in pg_catalog that columns may have and this server can read.
        base: of all other base types, the schemas that have one, by name.
        enums: labels of the enums, by name.
        others: names of composites and ranges outside pg_catalog.
    """

    builtin: frozenset[str] = frozenset()
    base: Mapping[str, Sequence[str]] = field(default_factory=dict)
    enums: Mapping[TableId, Sequence[str]] = field(default_factory=dict)
    others: frozenset[TableId] = frozenset()


@dataclass(frozen=True, slots=True)
class LakeType:
    """A column's type in the lake.

    Attributes:
        ddl: the type as DDL writes it.
        creates: statements that make the types it needs, in order.
        note: why it is text; empty if it is what it is at the source.
    """

    ddl: str
    creates: tuple[str, ...] = ()
    note: str = ""


def lake_type(column: Column, dialect: str, lake: LakeTypes, schema: str) -> LakeType:
    """Return the type of ``column`` in the lake schema ``schema``."""
    source_type = column.source_type if dialect == "postgres" else ""
    return _Resolver(lake, schema).resolve(column.type, source_type)


def bare_name(qualified: str) -> str:
    """Return the last part of a type's name, unquoted."""
    match = _QUALIFIED.fullmatch(qualified.strip())
    return _unquoted(match.group(2)) if match else qualified


class _Resolver:
    """Resolves one column's type, with the types that it is made of."""

    def __init__(self, lake: LakeTypes, schema: str) -> None:
        self._lake = lake
        self._schema = schema

    def resolve(self, node: LogicalType, source_type: str) -> LakeType:
        """Return the lake type; ``source_type`` is empty where no Postgres type text is known."""
        if isinstance(node, Array):
            element = source_type.removesuffix("[]") if source_type.endswith("[]") else ""
            inner = self.resolve(node.element, element)
            return (
                _as_text(f"its elements would be: {inner.note}")
                if inner.note
                else LakeType(f"{inner.ddl}[]", inner.creates)
            )
        if isinstance(node, Enum):
            return self._enum(node)
        if isinstance(node, Range):
            return self._range(node)
        if isinstance(node, Composite):
            return self._composite(node)
        named = self._named(source_type) if source_type else None
        if named is not None:
            return named
        if isinstance(node, Opaque):
            found = self._named(node.source_type)
            return found or _as_text(f"the lake has no type {node.source_type or 'of that name'}")
        return self._logical(node)

    def _named(self, source_type: str) -> LakeType | None:
        """Take a Postgres type over as it is written; None if the lake doesn't have it."""
        if source_type.endswith("[]"):
            inner = self._named(source_type[:-2])
            return LakeType(f"{inner.ddl}[]") if inner and not inner.note else inner
        bare = " ".join(_MODIFIERS.sub("", source_type).split())
        if _INTERVAL_FIELDS.fullmatch(bare):
            return LakeType(source_type)
        match = _QUALIFIED.fullmatch(bare)
        if match is None:
            return None
        schema, name = match.group(1), _unquoted(match.group(2))
        if schema in (None, "pg_catalog"):
            builtin = name if bare.startswith('"') else _ALIASES.get(name, name)
            if builtin in _UNPORTABLE:
                return _as_text(_UNPORTABLE[builtin])
            if builtin in self._lake.builtin:
                return LakeType(source_type)
        modifiers = "".join(_MODIFIERS.findall(source_type)).strip()
        return self._installed(_unquoted(schema or ""), name, modifiers)

    def _installed(self, schema: str, name: str, modifiers: str) -> LakeType | None:
        """Return an extension's type, in the source's schema if it is there, else wherever it is."""
        homes = self._lake.base.get(name, ())
        if not homes:
            return None
        return LakeType(f"{table_name(TableId(schema if schema in homes else homes[0], name))}{modifiers}")

    def _enum(self, node: Enum) -> LakeType:
        own = TableId(self._schema, bare_name(node.name))
        if own in self._lake.others:
            return _as_text(f"{own} is another kind of type in the lake")
        known = self._lake.enums.get(own)
        if known is None:
            labels = ", ".join(literal(label) for label in node.labels)
            return LakeType(table_name(own), (f"CREATE TYPE {table_name(own)} AS ENUM ({labels})",))
        return LakeType(table_name(own), tuple(_added_labels(own, known, node.labels)))

    def _range(self, node: Range) -> LakeType:
        name = bare_name(node.name)
        if name in self._lake.builtin:
            return LakeType(name)
        subtype = self.resolve(node.subtype, "")
        if subtype.note:
            return _as_text(f"its bounds would be: {subtype.note}")
        one, many = (_range_name(name), name) if node.multi else (name, _multirange_name(name))
        own, created = TableId(self._schema, name), TableId(self._schema, one)
        if own in self._lake.others:
            return LakeType(table_name(own), subtype.creates)
        multi = f", multirange_type_name = {table_name(TableId(self._schema, many))}"
        create = f"CREATE TYPE {table_name(created)} AS RANGE (subtype = {subtype.ddl}{multi})"
        return LakeType(table_name(own), (*subtype.creates, create))

    def _composite(self, node: Composite) -> LakeType:
        own = TableId(self._schema, bare_name(node.name))
        attributes = [(name, self.resolve(part, "")) for name, part in node.attributes]
        creates = tuple(statement for _, part in attributes for statement in part.creates)
        if own in self._lake.others:
            return LakeType(table_name(own), creates)
        if own in self._lake.enums:
            return _as_text(f"{own} is an enum in the lake")
        members = ", ".join(f"{identifier(name)} {part.ddl}" for name, part in attributes)
        return LakeType(table_name(own), (*creates, f"CREATE TYPE {table_name(own)} AS ({members})"))

    def _logical(self, node: LogicalType) -> LakeType:
        match node:
            case Vector(dimensions):
                return self._extension("vector", "" if dimensions is None else f"({dimensions})")
            case Geometry(srid):
                return self._extension("geometry", "" if srid is None else f"(Geometry,{srid})")
            case _:
                return LakeType(_logical_ddl(node))

    def _extension(self, name: str, modifiers: str) -> LakeType:
        found = self._installed("", name, modifiers)
        return found or _as_text(f"the lake has no type {name}: its extension isn't installed")


def _logical_ddl(node: LogicalType) -> str:  # noqa: C901, PLR0912 - a table, read from top to bottom
    """Return the built-in type that holds every value of ``node``."""
    match node:
        case Bool():
            return "boolean"
        case Int():
            return _integer(node)
        case Decimal(precision, scale):
            fits = precision is not None and precision <= MAX_PRECISION
            return f"numeric({precision},{scale or 0})" if fits else "numeric"
        case Float(bits):
            return "real" if bits == 32 else "double precision"
        case Text(length, fixed):
            fits = length is not None and 0 < length <= MAX_VARCHAR
            return f"{'character' if fixed else 'character varying'}({length})" if fits else "text"
        case Bytes():
            return "bytea"
        case Bits(length, varying):
            name = "bit varying" if varying or length is None else "bit"
            return name if length is None else f"{name}({length})"
        case Date():
            return "date"
        case Time(with_zone, precision) | Timestamp(with_zone, precision):
            name = "time" if isinstance(node, Time) else "timestamp"
            digits = "" if precision is None else f"({min(precision, 6)})"
            return f"{name}{digits} {'with' if with_zone else 'without'} time zone"
        case Interval():
            return "interval"
        case Json(binary):
            return "jsonb" if binary else "json"
        case Uuid():
            return "uuid"
        case _:
            return "text"


def _integer(node: Int) -> str:
    """Return the smallest integer type that holds ``node``; numeric(20,0) for unsigned 64 bits."""
    bits = node.bits if node.signed else node.bits + 1
    for limit, name in ((16, "smallint"), (32, "integer"), (64, "bigint")):
        if bits <= limit:
            return name
    return "numeric(20,0)"


def _added_labels(enum: TableId, known: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return statements that add the labels which the lake's enum lacks, each behind the one before it."""
    statements = []
    for i, label in enumerate(wanted):
        if label not in known:
            behind = f" AFTER {literal(wanted[i - 1])}" if i else f" BEFORE {literal(known[0])}" if known else ""
            statements.append(f"ALTER TYPE {table_name(enum)} ADD VALUE {literal(label)}{behind}")
    return statements


def _as_text(why: str) -> LakeType:
    return LakeType("text", note=why)


def _range_name(multirange: str) -> str:
    """Return the range's name, from the multirange's as Postgres would have derived it."""
    if "multirange" in multirange:
        return multirange.replace("multirange", "range", 1)
    return multirange.removesuffix("_multirange") if multirange.endswith("_multirange") else f"{multirange}_range"


def _multirange_name(name: str) -> str:
    return name.replace("range", "multirange", 1) if "range" in name else f"{name}_multirange"


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
