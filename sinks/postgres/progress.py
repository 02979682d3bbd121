"""What a lane stores about its source, as statements: ``cdc.state``'s tables, compiled once to psycopg's text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from sqlalchemy import and_, bindparam, func, literal_column, null, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.dialects.postgresql.psycopg import dialect
from sqlalchemy.sql import ClauseElement

from cdc.contracts import Progress, TableProgress, TableState
from cdc.group import CommitGroup
from cdc.schema import TableId, schema_from_json
from cdc.state import positions, tables

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _compiled(statement: ClauseElement) -> bytes:
    # SQLAlchemy leaves the constructors of its dialects without annotations.
    return str(statement.compile(dialect=dialect())).encode()  # type: ignore[no-untyped-call]


_moving = (
    update(positions)
    .where(positions.c.source == bindparam("of"), positions.c.position == bindparam("previous"))
    .values(
        position=bindparam("next"),
        committed_at=func.coalesce(
            bindparam("committed", type_=positions.c.committed_at.type), positions.c.committed_at
        ),
        updated_at=func.now(),
    )
)
_moved = _moving.returning(positions.c.source).cte("moved")

MOVE = _compiled(_moving)
"""Parameters of, previous, next, committed. Touches no row if the position isn't ``previous``."""

MOVE_OR_FAIL = _compiled(select(literal_column("1 / count(*)")).select_from(_moved))
"""The same, but fails with a division by zero, so that what follows in a pipeline fails too."""

_beginning = insert(positions).values(source=bindparam("of"), position=bindparam("next"))

BEGIN = _compiled(
    _beginning.on_conflict_do_update(
        index_elements=[positions.c.source],
        set_={"position": _beginning.excluded.position, "updated_at": func.now()},
        where=positions.c.position == literal_column("''"),
    )
)
"""Stores a position where none is, or an empty one: forgotten on purpose."""

READ = _compiled(select(positions.c.position).where(positions.c.source == bindparam("of")))

READ_SETTLED = _compiled(select(positions.c.position).where(positions.c.source == bindparam("of")).with_for_update())
"""Waits for a transaction that is moving the position."""

_this_table = and_(
    tables.c.source == bindparam("of"),
    tables.c.source_schema == bindparam("in_schema"),
    tables.c.source_table == bindparam("in_table"),
)

PASS = _compiled(
    update(tables)
    .where(_this_table, tables.c.watermark == bindparam("mark"))
    .values(watermark=null(), updated_at=func.now())
)
"""Clears a watermark, unless a copy made meanwhile has stored its own; parameters of, in_schema, in_table, mark."""

STOP = _compiled(
    update(tables)
    .where(_this_table)
    .values(state=literal_column(f"'{TableState.FAILED}'"), reason=bindparam("why"), updated_at=func.now())
)
"""Marks a table that is stored as failed; parameters of, in_schema, in_table, why."""

_store = insert(tables).values(
    source=bindparam("of"),
    source_schema=bindparam("in_schema"),
    source_table=bindparam("in_table"),
    lake_schema=bindparam("to_schema"),
    lake_table=bindparam("to_table"),
    state=bindparam("new_state"),
    watermark=bindparam("new_watermark"),
    membership=bindparam("new_membership"),
    reason=bindparam("new_reason"),
    schema=bindparam("new_schema", type_=tables.c.schema.type),
    schema_id=bindparam("new_schema_id"),
    updated_at=func.now(),
)
_new = _store.excluded

STORE = _compiled(
    _store.on_conflict_do_update(
        index_elements=list(tables.primary_key),
        set_={
            "lake_schema": _new.lake_schema,
            "lake_table": _new.lake_table,
            "state": _new.state,
            "watermark": _new.watermark,
            "membership": _new.membership,
            "reason": _new.reason,
            "schema": func.coalesce(_new.schema, tables.c.schema),
            "schema_id": func.coalesce(_new.schema_id, tables.c.schema_id),
            "updated_at": _new.updated_at,
        },
    )
)
"""Stores a table's state; a schema that is null leaves the stored one."""

FAIL = _compiled(
    _store.on_conflict_do_update(
        index_elements=list(tables.primary_key),
        set_={"state": _new.state, "reason": _new.reason, "updated_at": _new.updated_at},
    )
)

_pending = {
    "state": literal_column(f"'{TableState.PENDING}'"),
    "watermark": null(),
    "reason": literal_column("''"),
    "updated_at": func.now(),
}

FORGET_TABLE = _compiled(update(tables).where(_this_table).values(_pending))

FORGET_TABLES = _compiled(update(tables).where(tables.c.source == bindparam("of")).values(_pending))

FORGET_POSITION = _compiled(
    update(positions)
    .where(positions.c.source == bindparam("of"))
    .values(position=literal_column("''"), committed_at=null(), updated_at=func.now())
)

_POSITIONS = _compiled(select(positions.c.source, positions.c.position, positions.c.committed_at))

_TABLES = _compiled(
    select(
        tables.c.source,
        tables.c.source_schema,
        tables.c.source_table,
        tables.c.lake_schema,
        tables.c.lake_table,
        tables.c.state,
        tables.c.watermark,
        tables.c.membership,
        tables.c.reason,
        tables.c.schema,
    ).order_by(tables.c.source, tables.c.source_schema, tables.c.source_table)
)


def read_progress(connection: psycopg.Connection) -> dict[str, Progress]:
    """Return what is stored about every source; nothing if the tables aren't there yet."""
    row = connection.execute("SELECT to_regclass('cdc.positions') IS NULL").fetchone()
    if row is None or row[0]:
        return {}
    copies: dict[str, dict[TableId, TableProgress]] = {}
    for row in connection.execute(_TABLES):
        source, schema, name, lake_schema, lake_name, state, watermark, membership, reason, columns = row
        copies.setdefault(source, {})[TableId(schema, name)] = TableProgress(
            target=TableId(lake_schema, lake_name),
            state=TableState(state),
            watermark=watermark,
            membership=membership,
            reason=reason,
            schema=None if columns is None else schema_from_json(columns),
        )
    known = {source: (token, at) for source, token, at in connection.execute(_POSITIONS)}
    return {
        source: Progress(position=token, committed_at=at.timestamp() if at else None, tables=copies.get(source, {}))
        for source in sorted(known.keys() | copies.keys())
        for token, at in [known.get(source, (None, None))]
    }


def movement(group: CommitGroup, previous: str | None) -> dict[str, Any]:
    """Return the parameters of ``MOVE`` for a group."""
    times = group.transactions.commit_times_us
    committed = _EPOCH + timedelta(microseconds=int(times[-1])) if len(times) else None
    return {"of": group.source, "previous": previous, "next": group.position.token(), "committed": committed}


def named(source: str, table: TableId) -> dict[str, Any]:
    """Return the parameters that say which table."""
    return {"of": source, "in_schema": table.schema, "in_table": table.name}


def stored(
    source: str,
    table: TableId,
    target: TableId,
    state: TableState,
    *,
    watermark: str | None = None,
    membership: str = "",
    reason: str = "",
    schema: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the parameters of ``STORE`` and ``FAIL``."""
    return named(source, table) | {
        "to_schema": target.schema,
        "to_table": target.name,
        "new_state": state.value,
        "new_watermark": watermark,
        "new_membership": membership,
        "new_reason": reason,
        "new_schema": schema and schema["new_schema"],
        "new_schema_id": schema and schema["new_schema_id"],
    }
