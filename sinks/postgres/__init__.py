"""The PostgreSQL lake sink; ``sink`` is what the entry point of ``cdc.sinks`` names."""

from __future__ import annotations

from cdc.config import LakeConfig
from sinks.postgres.config import PostgresLakeConfig
from sinks.postgres.sink import PostgresSink

__all__ = ["PostgresLakeConfig", "PostgresSink", "sink"]


class _Plugin:
    config: type[LakeConfig] = PostgresLakeConfig

    def open(self, config: PostgresLakeConfig) -> PostgresSink:
        """Return the sink; connects to nothing yet."""
        return PostgresSink(config.url.get_secret_value())


sink = _Plugin()
