"""YAML text to plain values, stricter than PyYAML: a key given twice is an error, and errors never quote the text.

Errors carry line and column, both from 1.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from cdc.errors import ConfigError

_HINT = "look at indentation, brackets and quotes there; what begins with ! * & @ or % needs quotes"
_MAX_VALUES = 100_000  # a value that contains itself, or a thousand aliases of each other, would never end


def read_yaml(text: str, name: str) -> Any:
    """Return the only document of ``text``, None for an empty one; ``name`` is the file's, for errors.

    Raises:
        ConfigError: it isn't YAML, or a mapping has a key twice.
    """
    try:
        value = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - derived from SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        hint = "keep one of the two" if isinstance(error, _DuplicateKeyError) else _HINT
        raise ConfigError(f"{name}{place}: {_problem(error)}", hint=hint) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(
            f"{name}: expected YAML, got {_reader_problem(error)}", hint="write the file as UTF-8 text"
        ) from None
    except RecursionError:
        raise _too_large(name) from None
    if not _is_bounded(value):
        raise _too_large(name)
    return value


class _DuplicateKeyError(yaml.MarkedYAMLError):
    """A mapping has a key twice."""


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if key_node.value in seen:
                raise _DuplicateKeyError(
                    problem="expected every key once, got this one twice", problem_mark=key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _is_bounded(value: Any) -> bool:
    pending = [value]
    for _ in range(_MAX_VALUES):
        if not pending:
            return True
        match pending.pop():
            case dict() as mapping:
                pending.extend(mapping.values())
            case list() as items:
                pending.extend(items)
    return False


def _too_large(name: str) -> ConfigError:
    return ConfigError(
        f"{name}: expected at most {_MAX_VALUES} values, got more", hint="look for a value that contains itself"
    )


def _problem(error: yaml.MarkedYAMLError) -> str:
    """Return PyYAML's words without what they quote from the file, which may be a secret; its own tokens may stay."""
    context = f"{error.context}, " if (error.context or "").startswith("expected") else ""
    words = context + (error.problem or "expected YAML")
    return re.sub(r" ?'([^']*)'", lambda m: m[0] if re.fullmatch(r"<[a-z ]+>|\\?.", m[1]) else "", words)


def _reader_problem(error: Exception) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        return f"a character that isn't allowed, at offset {error.position}"
    return "a value that can't be read"
