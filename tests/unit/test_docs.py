"""What the documents say exists: links, commands, configuration keys, make targets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cdc.cli.main import cli
from cdc.config_loader import parse
from cdc.errors import ConfigError

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)
ENVIRONMENT = {"LAKE_URL": "postgresql://lake/lake", "SHOP_URL": "postgresql://shop/shop"}


def fences(text: str, *languages: str) -> Iterator[str]:
    return (body for language, body in FENCE.findall(text) if language in languages)


def command_lines(text: str) -> Iterator[list[str]]:
    """Words of everything that looks like a shell command: lines of shell blocks, and code between backticks."""
    for block in fences(text, "sh", "bash", "console"):
        for line in block.splitlines():
            for part in re.split(r"&&|\||;", line.split("#")[0]):
                yield part.strip().removeprefix("$ ").split()
    for code in INLINE.findall(FENCE.sub("", text)):
        yield code.split()


def missing_command(words: list[str]) -> str | None:
    """The part of a ``cdc`` command line that the program doesn't know; None if all is well."""
    group: click.Command = cli
    for word in (w for w in words[1:] if not w.startswith("-")):
        if not isinstance(group, click.Group):
            return None
        if word not in group.commands:
            return word if re.fullmatch(r"[a-z]+", word) else None
        group = group.commands[word]
    return None


def problems(text: str, directory: Path) -> Iterator[str]:
    for link in LINK.findall(text):
        path = link.split("#")[0]
        if path and "://" not in link and not (directory / path).exists():
            yield f"link to {link}"
    targets = set(TARGET.findall((ROOT / "Makefile").read_text()))
    for words in command_lines(text):
        if words[:1] == ["cdc"] and len(words) > 1 and (missing := missing_command(words)):
            yield f"command cdc {missing}"
        if words[:1] == ["make"] and len(words) > 1 and "=" not in words[1] and words[1] not in targets:
            yield f"target {words[1]}"
    for block in fences(text, "yaml"):
        if "sources:" in block:
            parse(block, ENVIRONMENT)


def test_there_are_documents() -> None:
    assert {path.name for path in DOCUMENTS} >= {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_mention_only_what_exists(document: Path) -> None:
    assert list(problems(document.read_text(), document.parent)) == []


def test_planted_mistakes_are_found(tmp_path: Path) -> None:
    text = "[a](gone.md) [b](https://example.org) `make nothing` `cdc fly`\n```sh\n$ cdc run && make test\n```\n"
    assert list(problems(text, tmp_path)) == ["link to gone.md", "target nothing", "command cdc fly"]
    config = "lake: {type: postgres, url: a}\nsources: {s: {type: postgres, url: b, tabels: [a.b]}}"
    with pytest.raises(ConfigError, match="tabels"):
        list(problems(f"```yaml\n{config}\n```", tmp_path))
