"""Which tables a source's patterns select. Pure.

A pattern is ``schema.table`` with the wildcards of a shell (``*``, ``?``, ``[abc]``, ``[!abc]``), case-sensitive. A
part in double quotes is taken literally (``""`` stands for one quote), so that names with dots or brackets can be
written. A leading ``!`` excludes. Patterns are read in order and the last that matches decides; what none matches isn't
selected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import NamedTuple

from cdc.schema import TableId

_QUOTED = r'"(?:[^"]|"")+"'
_PATTERN = re.compile(rf'(!?)({_QUOTED}|(?:\[[^\]]+\]|[^"\[\].])+)\.({_QUOTED}|(?:\[[^\]]+\]|[^"\[\]])+)')


class _Pattern(NamedTuple):
    """A pattern, ready to match."""

    excludes: bool
    schema: re.Pattern[str]
    name: re.Pattern[str]

    def matches(self, table: TableId) -> bool:
        return bool(self.schema.fullmatch(table.schema) and self.name.fullmatch(table.name))


def selects(patterns: Iterable[str], table: TableId) -> bool:
    """Return whether the patterns select the table.

    Raises:
        ValueError: a pattern can't be read.
    """
    decided = False
    for pattern in map(_compile, patterns):
        if pattern.excludes is decided and pattern.matches(table):
            decided = not pattern.excludes
    return decided


def unmatched(patterns: Iterable[str], tables: Sequence[TableId]) -> list[str]:
    """Return the patterns, in order, that match none of ``tables`` (all that the source has): most likely misspelt.

    Raises:
        ValueError: a pattern can't be read.
    """
    return [text for text in patterns if not any(map(_compile(text).matches, tables))]


def check_pattern(text: str) -> str:
    """Return the pattern itself if it can be read.

    Raises:
        ValueError: it can't; the text says what was expected.
    """
    _compile(text)
    return text


def excludes(text: str) -> bool:
    """Return whether the pattern begins with ``!``."""
    return text.startswith("!")


def quote(name: str) -> str:
    """Return the part of a pattern that matches exactly this schema's or table's name."""
    return name if re.fullmatch(r"\w+", name) else '"' + name.replace('"', '""') + '"'


@lru_cache(maxsize=4096)
def _compile(text: str) -> _Pattern:
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError("expected a pattern such as public.* or !public.sessions")
    excludes, schema, name = match.groups()
    return _Pattern(bool(excludes), _part(schema), _part(name))


def _part(text: str) -> re.Pattern[str]:
    if text.startswith('"'):
        return re.compile(re.escape(text[1:-1].replace('""', '"')))
    return re.compile(translate(text))
