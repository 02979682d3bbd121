"""A connector and a sink that hold what a test tells them to, registered in the place of the installed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool

from cdc import plugins
from cdc.config import LakeConfig, SourceConfig
from cdc.contracts import Finding, Progress, Severity, Step, TableProgress, TableState
from cdc.errors import CdcError, ConfigError
from cdc.schema import Column, Int, RowIdentity, TableId, TableSchema
from connectors.postgres.config import PostgresSourceConfig

CANARY = "hunter2canary"
SOURCE_DSN = f"postgresql://cdc:{CANARY}@db1/shop"
LAKE_DSN = f"postgresql://cdc:{CANARY}@lake/lake"
ENVIRON = {"SHOP_URL": SOURCE_DSN, "LAKE_URL": LAKE_DSN}

GOOD = """
lake: {type: postgres, url: "${LAKE_URL}"}
sources:
  shop:
    type: postgres
    url: ${SHOP_URL}
    tables: [public.*, "!public.sessions"]
    rpo: 30s
"""


def table(name: str, schema: str = "public") -> TableSchema:
    """Return a table with one key column."""
    column = Column("id", Int(64), "bigint", nullable=False, key_ordinal=0)
    return TableSchema(TableId(schema, name), "postgres", (column,), RowIdentity.KEY)


@dataclass
class World:
    """What the fakes hold, and what was done to them."""

    tables: list[TableSchema] = field(default_factory=lambda: [table("orders"), table("customers")])
    source_findings: list[Finding] = field(
        default_factory=lambda: [Finding(subject="wal_level", severity=Severity.OK, message="is logical")]
    )
    lake_findings: list[Finding] = field(
        default_factory=lambda: [Finding(subject="version", severity=Severity.OK, message="is 17")]
    )
    source_steps: list[Step] = field(
        default_factory=lambda: [
            Step(where="source", summary="create the publication", sql="CREATE PUBLICATION cdc_shop;"),
            Step(where="source", summary="create the slot", sql="SELECT pg_create_logical_replication_slot()"),
        ]
    )
    progress: dict[str, Progress] = field(default_factory=dict)
    forgotten: list[tuple[str, Sequence[TableId] | None]] = field(default_factory=list)
    broken_source: CdcError | None = None
    broken_lake: CdcError | None = None
    opened: list[tuple[str, Any]] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> World:
        """Make ``cdc.plugins`` offer the fakes as ``postgres``, and nothing else."""
        monkeypatch.setattr(plugins, "connector", lambda kind: _known(kind, FakeConnector(self)))
        monkeypatch.setattr(plugins, "sink", lambda kind: _known(kind, FakeSinkPlugin(self)))
        monkeypatch.setattr(plugins, "kinds", lambda group: ["postgres"])
        return self


def _known(kind: str, plugin: Any) -> Any:
    if kind != "postgres":
        raise ConfigError(f"type: expected one of postgres, got {kind!r}", hint="install it")
    return plugin


@dataclass
class FakeConnector:
    world: World
    config: type[SourceConfig] = PostgresSourceConfig

    def open(self, name: str, config: Any) -> FakeSource:
        self.world.opened.append((name, config))
        return FakeSource(self.world)


@dataclass
class FakeSinkPlugin:
    world: World
    config: type[LakeConfig] = LakeConfig

    def open(self, config: Any) -> FakeSink:
        self.world.opened.append(("lake", config))
        return FakeSink(self.world)


@dataclass
class FakeSource:
    world: World

    def _read(self) -> None:
        if self.world.broken_source:
            raise self.world.broken_source

    def check(self) -> Sequence[Finding]:
        self._read()
        return self.world.source_findings

    def tables(self) -> Mapping[TableId, TableSchema]:
        self._read()
        return {schema.table: schema for schema in self.world.tables}

    def plan(self) -> Sequence[Step]:
        self._read()
        return self.world.source_steps

    def close(self) -> None:
        pass


@dataclass
class FakeSink:
    world: World

    def _read(self) -> None:
        if self.world.broken_lake:
            raise self.world.broken_lake

    def check(self) -> Sequence[Finding]:
        self._read()
        return self.world.lake_findings

    def plan(self, tables: Mapping[TableId, tuple[TableSchema, TableId]]) -> Sequence[Step]:
        self._read()
        schema = Step(where="lake", summary="create schema cdc", sql="CREATE SCHEMA cdc")
        made = [Step(where="lake", summary=f"create {t}", sql=f"CREATE TABLE {t} ()") for _, t in tables.values()]
        return [schema, *made]

    def progress(self) -> Mapping[str, Progress]:
        self._read()
        return self.world.progress

    def state_engine(self) -> Engine:
        return create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})

    def forget(self, source: str, tables: Sequence[TableId] | None) -> None:
        self._read()
        self.world.forgotten.append((source, tables))


def streaming(*names: str) -> Progress:
    """Return what a lake has stored of ``shop`` when these tables stream."""
    tables = {TableId("public", n): TableProgress(target=TableId("shop", n), state=TableState.STREAMING) for n in names}
    return Progress(position='{"lsn":"0/16B3748"}', committed_at=1_700_000_000.0, tables=tables)
