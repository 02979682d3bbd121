"""Reads ``cdc.yaml``: YAML, then ``${ENV}``, then every section with the class of its connector or sink.

All problems of a file are reported at once, one per line, each with its path; the ``path`` of the ``ConfigError`` is
the first one's. No message quotes a value that is or may hold a secret, nor one that came from the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cdc import plugins
from cdc.config import SOURCE_NAME_PATTERN, Config, LakeConfig, Section, SourceConfig
from cdc.config_problems import Problem, explain, kind_of, raise_problems
from cdc.errors import ConfigError
from cdc.secrets import UnsetVariableError, expand
from cdc.yaml_reader import read_yaml


def load(path: str | Path, environ: Mapping[str, str] | None = None) -> Config:
    """Read and check the file; ``environ`` is what ``${NAME}`` refers to, by default the process's environment.

    Raises:
        ConfigError: the file can't be read, or is wrong.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: expected UTF-8 text, got other bytes at offset {error.start}", hint="write the file as UTF-8"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path}: expected a configuration file, got: {error.strerror}",
            hint="write one with: cdc init --source DSN --lake DSN, or name one with: -c FILE",
        ) from None
    return parse(text, os.environ if environ is None else environ, str(path))


def parse(text: str, environ: Mapping[str, str], name: str = "cdc.yaml") -> Config:
    """Check a configuration file's text; ``name`` is the file's, for errors.

    Raises:
        ConfigError: it is wrong.
    """
    data = read_yaml(text, name)
    if not isinstance(data, dict):
        got = "an empty file" if data is None else kind_of(data)
        raise ConfigError(
            f"{name}: expected a mapping with the keys lake and sources, got {got}",
            hint="write one with: cdc init --source DSN --lake DSN",
        )
    problems: list[Problem] = []
    values = _expand(data, "", environ, problems)
    raise_problems(problems)
    return _config(values, data)


def _expand(value: Any, path: str, environ: Mapping[str, str], problems: list[Problem]) -> Any:
    """Return ``value`` with every ``${NAME}`` in its strings replaced; keys stay as they are."""
    if isinstance(value, dict):
        problems.extend(
            Problem(path, f"expected text as a key, got {kind_of(key)}", "put the key in quotes")
            for key in value
            if not isinstance(key, str)
        )
        return {key: _expand(item, f"{path}.{key}".lstrip("."), environ, problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, f"{path}[{i}]", environ, problems) for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    try:
        return expand(value, environ)
    except UnsetVariableError as error:
        variable = error.args[0]
        message = f"expected the environment variable {variable}, which isn't set"
        problems.append(Problem(path, message, f"export {variable}=..., or give a default: ${{{variable}:-default}}"))
    except ValueError as error:
        problems.append(Problem(path, f"{error}, got another use of ${{", "write $$ for a dollar sign"))
    return value


def _config(values: dict[Any, Any], data: dict[Any, Any]) -> Config:
    problems: list[Problem] = []
    checked = dict(values)
    if "lake" in values:
        checked["lake"] = _section("lake", values["lake"], data["lake"], _lake_class, problems)
    if isinstance(values.get("sources"), dict):
        checked["sources"] = {
            name: _source(name, source, data["sources"][name], problems) for name, source in values["sources"].items()
        }
    done = {problem.path.partition(".")[0] for problem in problems}
    try:
        return Config.model_validate(checked)
    except ValidationError as error:
        found = explain(error, "", Config, data)
        raise_problems([problem for problem in found if problem.path.partition(".")[0] not in done] + problems)
        raise


def _source(name: str, values: Any, data: Any, problems: list[Problem]) -> SourceConfig | None:
    path = f"sources.{name}"
    if not re.fullmatch(SOURCE_NAME_PATTERN, name):
        message = f"expected a source name of at most 31 letters a-z, digits and underscores, got {name!r}"
        problems.append(
            Problem(path, message, "begin it with a letter; it becomes part of the replication slot's name")
        )
        return None
    if isinstance(values, dict) and values.get("schema") is None:
        values, data = {**values, "schema": name}, {**data, "schema": name}
    section = _section(path, values, data, _source_class, problems)
    return section if isinstance(section, SourceConfig) else None


def _section(path: str, values: Any, data: Any, find: Any, problems: list[Problem]) -> Section | None:
    if not isinstance(values, dict):
        problems.append(Problem(path, f"expected a mapping, got {kind_of(values)}", "give it the keys type and url"))
        return None
    model: type[Section] = find(None)
    try:
        if isinstance(values.get("type"), str):
            model = find(values["type"])
        return model.model_validate(values)
    except ConfigError as error:
        problems.append(Problem(f"{path}.type", str(error).removeprefix("type: "), error.hint))
    except ValidationError as error:
        problems.extend(explain(error, path, model, data))
    return None


def _source_class(kind: str | None) -> type[SourceConfig]:
    return SourceConfig if kind is None else plugins.connector(kind).config


def _lake_class(kind: str | None) -> type[LakeConfig]:
    return LakeConfig if kind is None else plugins.sink(kind).config
