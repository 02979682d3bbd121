"""Turns what is wrong with a configuration into lines that an operator can act on: ``path: expected X, got Y``.

The values come from the file as written, so that what the environment held is never shown; texts that may hold a
secret are named by their kind only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from cdc.config import Config, Section, SourceConfig
from cdc.errors import ConfigError
from cdc.secrets import redact

_LATER: dict[type[Section], tuple[str, ...]] = {
    Config: ("history", "derived", "datasets"),
    SourceConfig: ("columns",),
}
"""Keys that the design has and this version hasn't: refused by name, since ignoring them would promise too much."""

_EXPECTED = {
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "string_too_short": "a text that isn't empty",
    "string_too_long": "a shorter text",
}

_KINDS = {str: "text", int: "a number", float: "a number", list: "a list", dict: "a mapping"}

_MAX_SHOWN_CHARACTERS = 60
_MAYBE_SECRET = re.compile(r"://|@|pass|secret|token", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        path: where, as in ``sources.shop.rpo``.
        message: ``expected X, got Y``.
    """

    path: str
    message: str
    hint: str


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise all problems as one error; do nothing if there are none.

    Raises:
        ConfigError: with a line for each problem, and the path of the first.
    """
    if problems:
        raise ConfigError(
            "\n".join(redact(f"{problem.path or 'the file'}: {problem.message}") for problem in problems),
            hint="\n".join(dict.fromkeys(redact(problem.hint) for problem in problems)),
            path=redact(problems[0].path),
        )


def explain(error: ValidationError, path: str, model: type[Section], data: Any) -> list[Problem]:
    """Return pydantic's findings about the section at ``path``; ``data`` is what the file has there, as written."""
    return [_problem(detail, path, model, data) for detail in error.errors(include_url=False)]


def kind_of(value: Any) -> str:
    """Return what a value is, in words; of its content only whether it is true, false or empty."""
    if value is None or isinstance(value, bool):
        return "nothing" if value is None else str(value).lower()
    if value == "":
        return "an empty text"
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def _problem(detail: ErrorDetails, base: str, model: type[Section], data: Any) -> Problem:
    path = _path(base, detail["loc"])
    key = str(detail["loc"][-1]) if detail["loc"] else base
    if detail["type"] == "extra_forbidden":
        return _unknown_key(path, key, model)
    if detail["type"] == "missing":
        return Problem(path, "expected a value, got nothing", f"add the key {key}")
    field = _field(model, detail["loc"])
    about = field.description if field else None
    hint = f"{detail['loc'][0]}: {about}" if about else "cdc config schema lists every key"
    expected = _expected(detail)
    if ", got" not in expected and expected.startswith("expected "):
        expected = f"{expected}, got {_shown(data, detail['loc'], field)}"
    return Problem(path, expected, hint)


def _path(base: str, loc: Iterable[int | str]) -> str:
    path = base
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")


def _expected(detail: ErrorDetails) -> str:
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    if detail["type"] == "string_pattern_mismatch":
        return f"expected text that matches {detail['ctx']['pattern']}"
    if detail["type"] in _EXPECTED:
        return f"expected {_EXPECTED[detail['type']]}"
    return re.sub(r"^\w+ should ", "expected ", detail["msg"]).replace("expected be ", "expected ")


def _unknown_key(path: str, key: str, model: type[Section]) -> Problem:
    for owner, keys in _LATER.items():
        if key in keys and issubclass(model, owner):
            return Problem(path, "this version doesn't have it yet", f"remove {key}: nothing would come of it")
    known = [field.alias or name for name, field in model.model_fields.items()]
    near = get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known keys here: {', '.join(known)}"
    shown = "another" if _MAYBE_SECRET.search(key) else repr(key)
    return Problem(path if shown != "another" else path.rpartition(".")[0], f"expected a known key, got {shown}", hint)


def _field(model: type[Section], loc: Sequence[int | str]) -> FieldInfo | None:
    return next((f for name, f in model.model_fields.items() if loc and loc[0] in (name, f.alias)), None)


def _shown(data: Any, loc: Iterable[int | str], field: FieldInfo | None) -> str:
    """Return the value as the file has it, or its kind where that might give a secret away."""
    value = data
    for part in loc:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return "nothing"
    secret = field is not None and SecretStr.__name__ in repr(field.annotation)  # also inside Optional and list
    if isinstance(value, str) and value and not secret and not _MAYBE_SECRET.search(value):
        return repr(value if len(value) <= _MAX_SHOWN_CHARACTERS else value[:_MAX_SHOWN_CHARACTERS] + "...")
    if isinstance(value, int | float) and not isinstance(value, bool) and not secret:
        return str(value)
    return kind_of(value)
