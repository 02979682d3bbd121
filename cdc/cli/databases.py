"""Opens the databases that a configuration names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from cdc import plugins
from cdc.config import Config
from cdc.schema import TableId, TableSchema
from cdc.topology import lake_names

if TYPE_CHECKING:
    from cdc.contracts import Sink, Source


@contextmanager
def open_sources(config: Config) -> Iterator[dict[str, Source]]:
    """Yield every source by name, not connected yet; close them afterwards.

    Raises:
        ConfigError: a connector isn't installed.
    """
    with ExitStack() as stack:
        sources = {name: plugins.connector(source.type).open(name, source) for name, source in config.sources.items()}
        for source in sources.values():
            stack.callback(source.close)
        yield sources


def open_lake(config: Config) -> Sink:
    """Return the lake's sink; nothing is connected yet.

    Raises:
        ConfigError: the sink isn't installed.
    """
    return plugins.sink(config.lake.type).open(config.lake)


def targets(tables: Mapping[TableId, TableSchema], lake_schema: str) -> dict[TableId, tuple[TableSchema, TableId]]:
    """Return each table's schema and its name in the lake; tables that can't have one are left out."""
    places, _ = lake_names(lake_schema, tables)
    return {table: (tables[table], place) for table, place in places.items()}
