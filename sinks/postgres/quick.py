"""Small groups as single-row statements, for one round trip through psycopg's pipeline. Pure.

The rows are written one by one in commit order, so nothing needs to be compacted. What this can't say simply it leaves
to the way of large groups, and so does any error: that way finds out whose table it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cdc.change import ChangeBatch, OldImage, Op, Presence
from cdc.schema import RowIdentity
from sinks.postgres.sql import TableSql

MAX_ROWS = 16
"""Above this, COPY and statements over sets take less of the lake's time."""

Statement = tuple[bytes, Sequence[Any]]

_KNOWN_STATEMENTS = 256
"""Kept per table; updates may come with as many sets of columns as there are subsets of the large ones."""


@dataclass(slots=True)
class QuickSql:
    """One table's statements, made once each.

    Parameters are canonical text of unknown type, which the server reads as the column's.
    """

    sql: TableSql
    identity: RowIdentity
    _made: dict[tuple[str, tuple[str, ...]], bytes] = field(default_factory=dict)

    def statements(self, batch: ChangeBatch) -> list[Statement] | None:
        """Return the batch's statements in order; None if it must be written the other way."""
        if batch.is_truncate:
            return [(self.sql.delete_all().encode(), ())]
        if self.identity is RowIdentity.FULL_ROW:
            return None
        if batch.old_images is not None and len(batch) > 1 and (batch.old_images == OldImage.ROW).any():
            # The key may be deferrable: two rows may have it for a while.
            return None
        new = {name: column.to_pylist() for name, column in batch.columns.items()}
        old = {name: column.to_pylist() for name, column in batch.old.items()}
        made: list[Statement] = []
        for row, op in enumerate(batch.ops.tolist()):
            known = {name: values[row] for name, values in new.items() if _is_known(batch, name, row)}
            was = {name: values[row] for name, values in old.items()} if _has_old(batch, row) else {}
            if not self._add(made, op, known, was, whole=len(known) == len(new)):
                return None
        return made

    def _add(self, made: list[Statement], op: int, known: dict[str, Any], was: dict[str, Any], *, whole: bool) -> bool:
        """Append the statement for one row; return whether there is one."""
        key = self.sql.key
        if op in (Op.INSERT, Op.SNAPSHOT):
            kind = "upsert" if key else "insert"
            made.append((self._statement(kind, tuple(known)), tuple(known.values())))
            return all(name in known for name in key) and bool(known)
        if not key:
            return False
        where = tuple(was.get(name, known.get(name)) for name in key)
        if None in where:
            return False
        if op == Op.DELETE:
            made.append((self._statement("delete", ()), where))
            return True
        if whole and where == tuple(known.get(name) for name in key):
            made.append((self._statement("upsert", tuple(known)), tuple(known.values())))
            return True
        changed = {name: value for name, value in known.items() if name not in key or value != was.get(name, value)}
        if changed:
            made.append((self._statement("update", tuple(changed)), (*changed.values(), *where)))
        return True

    def _statement(self, kind: str, names: tuple[str, ...]) -> bytes:
        statement = self._made.get((kind, names))
        if statement is None:
            match kind:
                case "upsert":
                    text = self.sql.one_upsert(names)
                case "insert":
                    text = self.sql.one_insert(names)
                case "update":
                    text = self.sql.one_update(names)
                case _:
                    text = self.sql.one_delete()
            if len(self._made) >= _KNOWN_STATEMENTS:
                self._made.clear()
            statement = self._made[kind, names] = text.encode()
        return statement


def _is_known(batch: ChangeBatch, name: str, row: int) -> bool:
    states = batch.presence.get(name)
    return states is None or states[row] == Presence.VALUE


def _has_old(batch: ChangeBatch, row: int) -> bool:
    return batch.old_images is not None and batch.old_images[row] != OldImage.NONE
