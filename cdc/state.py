"""The engine's own tables: what is stored about sources and copies, and the audit trail.

``progress_tables`` always live in the lake's schema ``cdc``, because a sink writes them in the transaction that writes
the data. ``record_tables`` live there too unless the configuration's ``state`` names another database. The definitions
are SQLAlchemy Core, so that any database SQLAlchemy speaks to can hold them; hot paths compile theirs once.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, dialect
from sqlalchemy.schema import CreateSchema, CreateTable
from sqlalchemy.types import JSON

SCHEMA = "cdc"
"""Where the engine's own tables live, in databases that have schemas."""

INSTALL_LOCK = 0x636463_0001
"""Key of the advisory lock (``cdc`` and a number) under which tables are created, so that installs don't race."""

_json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
_instant = DateTime(timezone=True)

progress_tables = MetaData(schema=SCHEMA)
record_tables = MetaData(schema=SCHEMA)

positions = Table(
    "positions",
    progress_tables,
    Column("source", Text, primary_key=True),
    Column("position", Text, nullable=False, comment="token of the last applied group's position"),
    Column("committed_at", _instant, comment="when the last applied transaction was committed, by the source's clock"),
    Column("updated_at", _instant, nullable=False, server_default=func.now()),
    comment="How far each source has been applied to this lake; moved in the transactions that write the rows",
)

tables = Table(
    "tables",
    progress_tables,
    Column("source", Text, primary_key=True),
    Column("source_schema", Text, primary_key=True),
    Column("source_table", Text, primary_key=True),
    Column("lake_schema", Text, nullable=False),
    Column("lake_table", Text, nullable=False),
    Column("state", Text, nullable=False, comment="pending, streaming or failed"),
    Column("watermark", Text, comment="which transactions the initial copy holds; null when the stream is past it"),
    Column("membership", Text, nullable=False, server_default="", comment="the copy's place in the stream"),
    Column("reason", Text, nullable=False, server_default="", comment="why the table failed"),
    Column("schema", _json, comment="the source table's schema that the copy was made for; its columns are ours"),
    Column("schema_id", Text),
    Column("updated_at", _instant, nullable=False, server_default=func.now()),
    comment="Copies in this lake: which source table each belongs to, and how far it is",
)

audit = Table(
    "audit",
    record_tables,
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("at", _instant, nullable=False, server_default=func.now()),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", _json, nullable=False),
    comment="What people and the engine did; only ever appended to",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One line of the audit trail.

    Attributes:
        actor: who; the operating system's user by default.
        action: what, as a short word such as ``reset``.
        subject: to what, as in ``shop`` or ``shop public.orders``.
        detail: plain JSON values; never a cell's value or a secret.
    """

    at: datetime
    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]


class StateStore:
    """The audit trail in one database. Safe for several threads and processes.

    Args:
        engine: where; the store doesn't dispose of it.
        actor: who acts; None for the operating system's user.
    """

    def __init__(self, engine: Engine, *, actor: str | None = None) -> None:
        self._engine = adapted(engine)
        self._actor = actor or getpass.getuser()

    def install(self) -> None:
        """Create the tables where they are missing."""
        with self._engine.begin() as connection:
            create(connection, record_tables)

    def record(self, action: str, subject: str, detail: Mapping[str, Any]) -> None:
        """Append one entry, durably."""
        values = {"actor": self._actor, "action": action, "subject": subject, "detail": dict(detail)}
        with self._engine.begin() as connection:
            connection.execute(insert(audit).values(values))

    def audit(self) -> Sequence[AuditEntry]:
        """Return all entries, the oldest first."""
        wanted = select(audit.c.at, audit.c.actor, audit.c.action, audit.c.subject, audit.c.detail)
        with self._engine.connect() as connection:
            rows = connection.execute(wanted.order_by(audit.c.id)).mappings().all()
        return [AuditEntry(**row) for row in rows]


def open_store(url: str | None, lake: Callable[[], Engine]) -> StateStore:
    """Return the store that the configuration names.

    Args:
        url: SQLAlchemy URL of the key ``state``; None for the lake.
        lake: the lake's way in, asked only without a URL.
    """
    return StateStore(create_engine(url) if url else lake())


def adapted(engine: Engine) -> Engine:
    """Return the engine as these tables need it: without schemas where its database knows none."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(schema_translate_map={SCHEMA: None})
    return engine


def definitions(*collections: MetaData) -> list[str]:
    """Return the statements that create these tables, for PostgreSQL."""
    found = [table for collection in collections for table in collection.sorted_tables]
    postgres = dialect()  # type: ignore[no-untyped-call] # SQLAlchemy leaves it untyped
    return [" ".join(str(CreateTable(table).compile(dialect=postgres)).split()) for table in found]


def create(connection: Connection, metadata: MetaData) -> None:
    """Create what is missing of ``metadata``, in the connection's transaction.

    On PostgreSQL an advisory lock makes concurrent installs wait for one another, and a schema that exists is left
    alone, since CREATE SCHEMA IF NOT EXISTS would still need the privilege to create one.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(INSTALL_LOCK)))
        if connection.scalar(text("SELECT to_regnamespace(:name) IS NULL"), {"name": SCHEMA}):
            connection.execute(CreateSchema(SCHEMA))
    metadata.create_all(connection, checkfirst=True)
