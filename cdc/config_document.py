"""The configuration for people and their editors: the JSON Schema of the file, and a file's content without secrets."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, NoDefault, models_json_schema
from pydantic_core import core_schema

from cdc import plugins
from cdc.config import SOURCE_NAME_PATTERN, Config

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``cdc.yaml``, with the keys of every installed connector and sink.

    Raises:
        ConfigError: an installed plugin can't be found.
    """
    connectors = {kind: plugins.connector(kind).config for kind in plugins.kinds("cdc.connectors")}
    sinks = {kind: plugins.sink(kind).config for kind in plugins.kinds("cdc.sinks")}
    models: list[type[BaseModel]] = [Config, *connectors.values(), *sinks.values()]
    refs, document = models_json_schema(
        [(model, "validation") for model in models], schema_generator=_Generator, ref_template="#/$defs/{model}"
    )
    definitions = document["$defs"]

    def choice(kinds: dict[str, Any]) -> dict[str, Any]:
        options = []
        for kind, model in kinds.items():
            ref = refs[model, "validation"]
            options.append({**ref, "properties": {"type": {"const": kind}}})
        return {"oneOf": options}

    root = definitions.pop(refs[Config, "validation"]["$ref"].rpartition("/")[2])
    properties = root["properties"]
    properties["lake"] |= choice(sinks)
    properties["lake"].pop("$ref", None)
    properties["sources"] |= {
        "additionalProperties": choice(connectors),
        "propertyNames": {"pattern": f"^{SOURCE_NAME_PATTERN}$"},
        "minProperties": 1,
    }
    used = str(definitions) + str(properties)
    definitions = {name: value for name, value in definitions.items() if f"'#/$defs/{name}'" in used}
    return {"$schema": _DIALECT, **root, "title": "cdc.yaml", "$defs": definitions}


def masked(config: Config) -> dict[str, Any]:
    """Return the configuration as a file would hold it, defaults filled in: plain values, and no password in them."""
    return config.model_dump(mode="json", by_alias=True)


class _Generator(GenerateJsonSchema):
    """Writes defaults as a file does (``10s``, not 10.0) and leaves out titles that repeat the key."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        value = super().get_default_value(schema)
        serialization: dict[str, Any] = schema["schema"].get("serialization", {})
        if serialization.get("type") == "function-plain" and isinstance(value, int | float):
            return serialization["function"](value)
        return NoDefault if value == "" else value
