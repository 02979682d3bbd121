"""What ``lake`` says in cdc.yaml when its type is postgres."""

from __future__ import annotations

from typing import Literal

from cdc.config import LakeConfig


class PostgresLakeConfig(LakeConfig):
    """A PostgreSQL database that holds the copies."""

    type: Literal["postgres"] = "postgres"
