"""The tables of one running source: their states, watched by the threads that move them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from threading import Condition

from cdc.change import Op
from cdc.contracts import LakeGroup, TableCopy, TableProgress, TableState, Watermark
from cdc.schema import TableId, TableSchema
from cdc.status import TableStatus
from cdc.topology import Placement

_OP_LETTERS = {op: chr(op) for op in Op}


@dataclass(slots=True)
class _Table:
    schema: TableSchema
    target: TableId
    state: TableState
    watermark: Watermark | None = None
    membership: str = ""
    reason: str = ""
    changes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_OP_LETTERS.values(), 0))
    copied_rows: int = 0

    def become(self, state: TableState, *, watermark: Watermark | None = None, reason: str = "") -> None:
        self.state, self.watermark, self.reason = state, watermark, reason


class TableBook:
    """Every table's state. Thread-safe.

    A table's way is pending → copying → streaming; from any of them it may fail, and what failed is pending again once
    somebody asks for it.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._tables: dict[TableId, _Table] = {}

    def load(
        self,
        schemas: Mapping[TableId, TableSchema],
        targets: Mapping[TableId, TableId],
        stored: Mapping[TableId, TableProgress],
        watermark: Callable[[str], Watermark],
    ) -> list[tuple[TableId, str]]:
        """Take over what the sink has stored about the selected tables.

        Only a copy that follows the source under the schema that the source has now goes on; all others start again.

        Returns:
            streaming tables that must be copied again, with the reason.
        """
        again: list[tuple[TableId, str]] = []
        with self._changed:
            known, self._tables = self._tables, {}
            for table, target in targets.items():
                entry = _Table(schemas[table], target, TableState.PENDING)
                before = known.get(table)
                if before is not None:
                    entry.changes, entry.copied_rows = before.changes, before.copied_rows
                progress = stored.get(table)
                if progress is not None and progress.state is TableState.STREAMING:
                    if progress.schema == schemas[table] and progress.target == target:
                        mark = watermark(progress.watermark) if progress.watermark else None
                        entry.become(TableState.STREAMING, watermark=mark)
                        entry.membership = progress.membership
                    else:
                        again.append((table, "its columns, key or place in the lake have changed"))
                self._tables[table] = entry
            self._changed.notify_all()
        return again

    def add(self, schema: TableSchema, target: TableId) -> None:
        """Take in a table that has just been found."""
        with self._changed:
            self._tables[schema.table] = _Table(schema, target, TableState.PENDING)

    def names(self, *states: TableState) -> list[TableId]:
        """Return the tables in any of these states, or all, in order."""
        with self._changed:
            return sorted(name for name, table in self._tables.items() if not states or table.state in states)

    def changed(self, schemas: Mapping[TableId, TableSchema]) -> dict[TableId, str]:
        """Return the streaming tables whose columns aren't those that they were copied with, and what is different."""
        with self._changed:
            streaming = {name: t.schema for name, t in self._tables.items() if t.state is TableState.STREAMING}
        found = {name: _differences(schema, schemas[name]) for name, schema in streaming.items() if name in schemas}
        return {name: words for name, words in found.items() if words}

    def memberships(self) -> dict[TableId, str]:
        """Return the streaming tables with the membership of their copy."""
        with self._changed:
            return {n: t.membership for n, t in sorted(self._tables.items()) if t.state is TableState.STREAMING}

    def placements(self) -> dict[TableId, Placement]:
        """Return what the topology has to know of each table."""
        with self._changed:
            return {name: Placement(t.target, t.state, t.watermark) for name, t in self._tables.items()}

    def start_copy(self, name: TableId) -> tuple[TableSchema, TableId]:
        """Move a table to copying; return what to copy, and where to."""
        with self._changed:
            table = self._tables[name]
            table.become(TableState.COPYING)
            return table.schema, table.target

    def copied(self, copy: TableCopy, rows: int) -> None:
        """Move a table whose copy is durable to streaming."""
        with self._changed:
            table = self._tables[copy.schema.table]
            table.become(TableState.STREAMING, watermark=copy.watermark)
            table.membership = copy.membership
            table.copied_rows = rows
            table.changes["r"] += rows
            self._changed.notify_all()

    def postpone(self, name: TableId) -> None:
        """Move a table whose copy was interrupted back to pending."""
        with self._changed:
            self._tables[name].become(TableState.PENDING)

    def fail(self, name: TableId, reason: str) -> None:
        """Stop a table."""
        with self._changed:
            self._tables[name].become(TableState.FAILED, reason=reason)
            self._changed.notify_all()

    def applied(self, group: LakeGroup) -> None:
        """Count what a durable group held, and drop the watermarks that it passed."""
        with self._changed:
            for name in group.passed:
                table = self._tables[name]
                if table.watermark is group.watermarks[name]:  # and not that of a copy made meanwhile
                    table.watermark = None
            for name, counts in group.tally.items():
                changes = self._tables[name].changes
                for op, letter in _OP_LETTERS.items():
                    changes[letter] += int(counts[op])

    def await_copies(self, names: Collection[TableId], give_up: Callable[[], bool]) -> bool:
        """Wait until none of these tables is on its way to streaming.

        Returns:
            False if ``give_up`` became true instead; it is looked at twice a second.
        """

        def settled() -> bool:
            on_their_way = (TableState.PENDING, TableState.COPYING)
            return not any(name in self._tables and self._tables[name].state in on_their_way for name in names)

        with self._changed:
            while not settled():
                if give_up():
                    return False
                self._changed.wait(0.5)
        return True

    def status(self) -> list[TableStatus]:
        """Return every table's state for a person to read."""
        with self._changed:
            return [
                TableStatus(
                    table=str(name),
                    target=str(table.target),
                    state=table.state,
                    reason=table.reason,
                    changes=dict(table.changes),
                    copied_rows=table.copied_rows,
                )
                for name, table in sorted(self._tables.items())
            ]


def _differences(before: TableSchema, now: TableSchema) -> str:
    """Return in words which columns were added, dropped or given another type."""
    old, new = ({column.name: column.source_type for column in schema.columns} for schema in (before, now))
    changed = [name for name in old.keys() & new.keys() if old[name] != new[name]]
    found = (("added", new.keys() - old.keys()), ("dropped", old.keys() - new.keys()), ("changed", changed))
    return "; ".join(f"{verb} {', '.join(sorted(names))}" for verb, names in found if names)
