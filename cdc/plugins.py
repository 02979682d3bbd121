"""Finds connectors and sinks by entry point (``cdc.connectors``, ``cdc.sinks``), so that anybody can add one."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

from cdc.config import LakeConfig, SourceConfig
from cdc.contracts import Sink, Source
from cdc.errors import ConfigError


class ConnectorPlugin(Protocol):
    """What an entry point of ``cdc.connectors`` names."""

    config: type[SourceConfig]

    def open(self, name: str, config: Any) -> Source:
        """Return the source; connects to nothing yet. ``config`` is an instance of ``self.config``."""
        ...


class SinkPlugin(Protocol):
    """What an entry point of ``cdc.sinks`` names."""

    config: type[LakeConfig]

    def open(self, config: Any) -> Sink:
        """Return the sink; connects to nothing yet. ``config`` is an instance of ``self.config``."""
        ...


def connector(kind: str) -> ConnectorPlugin:
    """Return the connector for a source's ``type``.

    Raises:
        ConfigError: no installed package offers it.
    """
    plugin: ConnectorPlugin = _find("cdc.connectors", kind).load()
    return plugin


def sink(kind: str) -> SinkPlugin:
    """Return the sink for the lake's ``type``.

    Raises:
        ConfigError: no installed package offers it.
    """
    plugin: SinkPlugin = _find("cdc.sinks", kind).load()
    return plugin


def kinds(group: str) -> list[str]:
    """Return the names of all installed plugins of an entry-point group, sorted."""
    return sorted(entry.name for entry in entry_points(group=group))


def _find(group: str, kind: str) -> EntryPoint:
    for entry in entry_points(group=group):
        if entry.name == kind:
            return entry
    known = ", ".join(kinds(group)) or "none"
    raise ConfigError(f"type: expected one of {known}, got {kind!r}", hint=f"install a package that offers {kind!r}")
