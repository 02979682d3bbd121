"""The configuration as frozen objects: what ``cdc.yaml`` says, checked, with every unit converted.

Connectors and sinks subclass ``SourceConfig`` and ``LakeConfig`` with keys of their own. Reading a file is
``cdc.config_loader``'s work: this module knows neither files nor plugins, and reads the environment never.
Durations are seconds, sizes are bytes; ``model_dump(by_alias=True)`` writes them as a file does, with secrets masked.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    SerializeAsAny,
    WithJsonSchema,
    field_validator,
)

from cdc.secrets import mask_dsn, read_secret
from cdc.selection import check_pattern, excludes
from cdc.units import DURATION_PATTERN, SIZE_PATTERN, format_duration, format_size, parse_duration, parse_size

SOURCE_NAME_PATTERN = r"[a-z][a-z0-9_]{0,30}"
"""A source's name becomes part of its replication slot's: lower case, digits, underscore, with room for a prefix."""

ENGINE_SCHEMA = "cdc"
"""The lake schema of the engine's own tables."""

_REFERENCE_PATTERN = r".*\$\{.+\}.*"


def _duration(value: Any) -> float:
    if value in (0, "0") and not isinstance(value, bool):
        return 0.0
    return parse_duration(value if isinstance(value, str) else "")


def _interval(value: Any) -> float:
    seconds = _duration(value)
    if seconds == 0:
        raise ValueError("expected a duration above 0s")
    return seconds


def _size(value: Any) -> int:
    size_bytes = parse_size(value if isinstance(value, str) else "")
    if size_bytes == 0:
        raise ValueError("expected a size above 0B")
    return size_bytes


def _secret(value: Any) -> SecretStr:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        raise ValueError("expected text")  # noqa: TRY004 - pydantic reports ValueError with its place
    if not text.strip():
        raise ValueError("expected a URL")
    return SecretStr(read_secret(text) if text.startswith("file:") else text)


def _schema(pattern: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^({pattern}|{_REFERENCE_PATTERN})$", "examples": [example]})


Duration = Annotated[
    float, BeforeValidator(_duration), PlainSerializer(format_duration), _schema(DURATION_PATTERN, "30s")
]
"""Seconds, 0 or more."""

Interval = Annotated[
    float, BeforeValidator(_interval), PlainSerializer(format_duration), _schema(DURATION_PATTERN, "30s")
]
"""Seconds, more than 0."""

Size = Annotated[int, BeforeValidator(_size), PlainSerializer(format_size), _schema(SIZE_PATTERN, "10GiB")]
"""Bytes, more than 0."""

SecretUrl = Annotated[
    SecretStr, BeforeValidator(_secret), PlainSerializer(lambda url: mask_dsn(url.get_secret_value()), return_type=str)
]
"""A URL or DSN, or ``file:/path`` of a file that holds it; printed without its password."""

Pattern = Annotated[str, AfterValidator(check_pattern)]
"""A pattern of ``cdc.selection``."""


class Section(BaseModel):
    """A mapping of the file: frozen, and without keys that it doesn't know."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class LakeConfig(Section):
    """Where the copies live."""

    type: str
    """The sink: the name of an entry point of cdc.sinks, as in postgres."""
    url: SecretUrl
    """How to reach the lake; ${LAKE_URL} or file:/run/secrets/lake keeps the password out of this file."""


class SourceConfig(Section):
    """One source database."""

    type: str
    """The connector: the name of an entry point of cdc.connectors, as in postgres."""
    url: SecretUrl
    """How to reach the source; ${SHOP_URL} or file:/run/secrets/shop keeps the password out of this file."""
    tables: tuple[Pattern, ...]
    """Which tables to copy: patterns such as public.*, or !public.sessions to leave one out; the last match decides."""
    lake_schema: str = Field("", alias="schema", min_length=1)
    """The lake schema that the copies live in; by default the source's name."""
    rpo: Duration | None = None
    """Recovery point objective: how old a commit may become before it is durable in the lake."""
    rto: Duration | None = None
    """Recovery time objective: how long catching up with a backlog may take."""
    retain: Size | None = None
    """How much log the source should keep for us at the most; beyond it the log says so, and cdc status shows both."""
    discover: Interval = 10.0
    """How often to look for new tables that the patterns select."""

    @field_validator("tables")
    @classmethod
    def _check_tables(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        if not patterns or excludes(patterns[0]):
            raise ValueError("expected a list that begins with what to include, as in ['public.*', '!public.sessions']")
        return patterns

    @field_validator("lake_schema")
    @classmethod
    def _check_lake_schema(cls, name: str) -> str:
        if name == ENGINE_SCHEMA:
            raise ValueError(f"expected a schema other than {ENGINE_SCHEMA}, which holds the engine's own tables")
        return name


class Config(Section):
    """The whole file."""

    environment: str = Field("development", min_length=1)
    """A label for this engine's status, as in acceptance or production."""
    transport: str = "memory://"
    """How groups travel from connectors to sinks. This version has memory:// only: all in one process."""
    state: SecretUrl | None = None
    """SQLAlchemy URL of the state store; by default the schema cdc of the lake."""
    http: str | None = "127.0.0.1:8080"
    """Where /metrics, /healthz, /readyz and /api are served, as host:port; null for nowhere."""
    lake: SerializeAsAny[LakeConfig]
    """Where the copies live."""
    sources: dict[str, SerializeAsAny[SourceConfig]]
    """The source databases by name; a name is lower case, as it becomes part of a replication slot's."""

    @field_validator("transport")
    @classmethod
    def _check_transport(cls, url: str) -> str:
        if url.startswith("kafka:"):
            raise ValueError("this version doesn't have kafka:// yet")
        if url != "memory://":
            raise ValueError("expected memory://")
        return url

    @field_validator("http", mode="before")
    @classmethod
    def _check_http(cls, address: Any) -> Any:
        if address is None or address is False or address == "":
            return None
        if not isinstance(address, str):
            raise ValueError("expected host:port such as 127.0.0.1:8080, or null")  # noqa: TRY004 - as above
        split_address(address)
        return address

    @field_validator("sources")
    @classmethod
    def _check_sources(cls, sources: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
        if not sources:
            raise ValueError("expected at least one source")
        return sources


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[ipv6]:port``; port 0 means any free one.

    Raises:
        ValueError: the text says what was expected.
    """
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.%]+)\]|([\w.-]+)):([0-9]{1,5})", address)
    if match is None or int(match[3]) > 65535:
        raise ValueError("expected host:port such as 127.0.0.1:8080, or null")
    return match[1] or match[2], int(match[3])
