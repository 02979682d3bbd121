"""The stages that every group passes, whatever transport brought it: map ▸ evolve ▸ route ▸ apply.

Written once, without threads, sockets or Faust; a runner calls them and does what waiting there is. *map* gives each
source table its place in the lake; *evolve* stops the tables whose rows no longer fit their copy; *route* chooses what
of a group goes to the sink; *apply* is the sink's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cdc.contracts import LakeGroup, Lane, TableState, Watermark
from cdc.errors import DataError
from cdc.group import CommitGroup
from cdc.schema import TableId


def lake_names(lake_schema: str, tables: Iterable[TableId]) -> tuple[dict[TableId, TableId], dict[TableId, str]]:
    """Return each table's place in the lake, and for those that can't have one, why.

    A copy keeps its table's name. Of two tables with one name in different schemas, the first by schema has it.
    """
    places: dict[TableId, TableId] = {}
    taken: dict[TableId, TableId] = {}
    refused: dict[TableId, str] = {}
    for table in sorted(tables):
        place = TableId(lake_schema, table.name)
        owner = taken.setdefault(place, table)
        if owner == table:
            places[table] = place
        else:
            refused[table] = (
                f"table {table}: expected a free name in the lake, but {place} is the copy of {owner}; "
                "give one of them a source of its own with another schema"
            )
    return places, refused


@dataclass(frozen=True, slots=True)
class Placement:
    """What *route* has to know of a table.

    Attributes:
        watermark: of its initial copy, while transactions that the copy holds may still come.
    """

    target: TableId
    state: TableState
    watermark: Watermark | None = None


@dataclass(slots=True)
class Stages:
    """The stages over one source's lane.

    Attributes:
        lane: where *apply* writes.
        failures: tables that a group stopped, by reason, until the group that says so is durable.
    """

    lane: Lane
    failures: dict[TableId, str] = field(default_factory=dict)

    def route(self, group: CommitGroup, placements: Mapping[TableId, Placement]) -> LakeGroup:
        """Return what of ``group`` the sink is to write: the streaming tables, less what their copies hold."""
        streaming = {
            table: place
            for table in group.tables
            if (place := placements.get(table)) and place.state is TableState.STREAMING and table not in self.failures
        }
        marked = {table: place.watermark for table, place in streaming.items() if place.watermark is not None}
        return LakeGroup(
            group=group,
            targets={table: place.target for table, place in streaming.items()},
            watermarks=marked,
            passed=[table for table, mark in marked.items() if mark.passed(group.position)],
            failed=dict(self.failures),
        )

    def apply(self, group: CommitGroup, placements: Mapping[TableId, Placement]) -> LakeGroup:
        """Write a group; leave out and mark as failed each table whose rows the lake or the schema refuses.

        Returns:
            what was written; durable.

        Raises:
            RetryableError: nothing was written; call again with the same group.
            DataError: no table can be blamed.
        """
        while True:
            routed = self.route(group, placements)
            try:
                self.lane.apply(routed)
            except DataError as error:
                # By its text: where a schema's name holds a dot, the text can't be taken apart again.
                table = next((one for one in routed.targets if str(one) == error.table), None)
                if table is None:
                    raise
                self.failures[table] = str(error)
            else:
                self.failures.clear()
                return routed
