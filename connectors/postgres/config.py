"""The keys of a source with ``type: postgres``."""

from __future__ import annotations

import re

from pydantic import Field, SecretStr, field_validator

from cdc.config import SourceConfig


class PostgresSourceConfig(SourceConfig):
    """A PostgreSQL database, read by logical replication."""

    slot: str | None = Field(None, pattern=r"^[a-z0-9_]{1,63}$")
    """The replication slot; by default cdc_ and the source's name."""
    publication: str | None = Field(None, min_length=1, max_length=63)
    """The publication; by default cdc_ and the source's name."""
    two_phase: bool = False
    """Receive prepared transactions (PREPARE TRANSACTION) when they are prepared, not when they commit."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: SecretStr) -> SecretStr:
        if not re.match(r"postgres(ql)?://|\s*\w+\s*=", url.get_secret_value()):
            raise ValueError("expected a DSN such as postgresql://user@host/database")
        return url
