"""PostgreSQL as a source, by logical decoding."""

from __future__ import annotations

from connectors.postgres.config import PostgresSourceConfig
from connectors.postgres.source import PostgresSource


class PostgresConnector:
    """The entry point ``postgres`` of ``cdc.connectors``."""

    config = PostgresSourceConfig

    def open(self, name: str, config: PostgresSourceConfig) -> PostgresSource:
        """Return the source; connects to nothing yet."""
        return PostgresSource(name, config)


connector = PostgresConnector()
