"""What must be created or altered in the lake for a table. Pure: what is wanted and what is there in, statements out.

Columns are nullable outside the key: a copy must accept whatever the source sends, also while the source relaxes or
tightens its own constraints. Only the key is enforced, since rows are found by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cdc.contracts import Step
from cdc.errors import ApplyRefusedError
from cdc.schema import RowIdentity, TableId, TableSchema
from sinks.postgres.sql import identifier, listed, literal, table_name
from sinks.postgres.types import LakeType

NAME_BYTES = 63
"""Postgres cuts longer names off, and two of them may then be one."""


@dataclass(frozen=True, slots=True)
class LakeColumn:
    """A column as the lake's catalog has it; ``type`` is (oid, modifier), ``text`` the same as ``format_type`` says."""

    type: tuple[int, int]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeTable:
    """What the lake has under a target's name.

    Attributes:
        kind: pg_class.relkind; empty where nothing has that name.
        owner: the source and table it is the copy of; None if it isn't one of ours.
        owned: the columns that are the source's.
        key: names of the primary key's columns.
    """

    schema_exists: bool = False
    kind: str = ""
    owner: tuple[str, TableId] | None = None
    owned: frozenset[str] = frozenset()
    columns: Mapping[str, LakeColumn] = field(default_factory=dict)
    key: Sequence[str] = ()


def steps(
    source: str | None,
    schema: TableSchema,
    target: TableId,
    *,
    types: Mapping[str, LakeType],
    expected: Mapping[str, tuple[int, int]],
    found: LakeTable,
) -> list[Step]:
    """Return what is to be done, in order.

    Args:
        source: whose table it is; None if that isn't known, and isn't checked then.
        schema: what is wanted.
        target: where.
        types: by column name.
        expected: (oid, modifier) by column name; those whose type doesn't exist yet are left out.
        found: what is there.

    Raises:
        ApplyRefusedError: the lake has something else under this name, or the columns don't fit.
    """
    _check_names(schema, target)
    made = (
        [] if found.schema_exists else [_step(f"schema {target.schema}", f"CREATE SCHEMA {identifier(target.schema)}")]
    )
    creates = list(dict.fromkeys(statement for name in schema.names for statement in types[name].creates))
    made += [_step(_type_summary(statement), statement) for statement in creates]
    if not found.kind:
        create = create_table(target, schema, types)
        made.append(_step(f"table {target}{_notes(schema.names, types)}", create))
        origin = f"{source} {schema.table}" if source else str(schema.table)
        comment = f"Copy of {origin}, kept by cdc; columns, indexes, views and triggers may be added"
        made.append(_step(f"comment on {target}", f"COMMENT ON TABLE {table_name(target)} IS {literal(comment)}"))
        return made
    _check_owner(source, schema, target, found)
    added = [name for name in schema.names if name not in found.columns]
    _check_columns(schema, target, expected, types, found)
    if added:
        parts = ", ".join(f"ADD COLUMN {identifier(name)} {types[name].ddl}" for name in added)
        summary = f"columns {', '.join(added)} of {target}{_notes(added, types)}"
        made.append(_step(summary, f"ALTER TABLE {table_name(target)} {parts}"))
    return made


def create_table(target: TableId, schema: TableSchema, types: Mapping[str, LakeType]) -> str:
    """Return the CREATE TABLE statement."""
    key = schema.key if schema.identity is RowIdentity.KEY else ()
    parts = [f"{identifier(name)} {types[name].ddl}{' NOT NULL' if name in key else ''}" for name in schema.names]
    if key:
        parts.append(f"PRIMARY KEY ({listed(key)})")
    return f"CREATE TABLE {table_name(target)} ({', '.join(parts)})"


def _check_names(schema: TableSchema, target: TableId) -> None:
    if not schema.columns:
        raise _refused(schema, f"table {schema.table}: expected a column, got none")
    for name in (*target, *schema.names):
        if len(name.encode()) > NAME_BYTES:
            raise _refused(schema, f"name {name!r}: expected at most {NAME_BYTES} bytes in the lake")


def _check_owner(source: str | None, schema: TableSchema, target: TableId, found: LakeTable) -> None:
    if found.owner is None or found.kind != "r":
        was = "a table of its own" if found.kind in ("r", "p") else "something that isn't a table"
        raise _refused(
            schema, f"lake table {target}: expected none or our copy, got {was}: rename it, or choose another schema"
        )
    if found.owner != (source or found.owner[0], schema.table):
        raise _refused(
            schema,
            f"lake table {target}: expected none or our copy, got the copy of {found.owner[0]} {found.owner[1]}:"
            " choose another schema",
        )


def _check_columns(
    schema: TableSchema,
    target: TableId,
    expected: Mapping[str, tuple[int, int]],
    types: Mapping[str, LakeType],
    found: LakeTable,
) -> None:
    for name in schema.names:
        column = found.columns.get(name)
        if column is None:
            continue
        place = f"lake column {target}.{name}"
        if name not in found.owned:
            raise _refused(schema, f"{place}: expected none, got one that the lake's users own: rename it")
        if column.type != expected.get(name):
            raise _refused(
                schema,
                f"{place}: expected type {types[name].ddl}, got {column.text}: alter or drop it, or rename the table,"
                " then copy it again",
            )
    key = schema.key if schema.identity is RowIdentity.KEY else ()
    if key and tuple(key) != tuple(found.key):
        got = ", ".join(found.key) or "none"
        raise _refused(schema, f"lake table {target}: expected primary key ({', '.join(key)}), got {got}: rename it")


def _refused(schema: TableSchema, message: str) -> ApplyRefusedError:
    return ApplyRefusedError(message, table=str(schema.table))


def _notes(names: Iterable[str], types: Mapping[str, LakeType]) -> str:
    notes = [f"{name} as text because {types[name].note}" for name in names if types[name].note]
    return f" ({'; '.join(notes)})" if notes else ""


def _type_summary(statement: str) -> str:
    verb, _, rest = statement.partition(" TYPE ")
    return f"{'type' if verb == 'CREATE' else 'label of type'} {rest.split(' AS ')[0].split(' ADD VALUE ')[0]}"


def _step(summary: str, statement: str) -> Step:
    return Step(where="lake", summary=summary, sql=statement)
