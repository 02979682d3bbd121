"""Imports run one way: the model is the ground floor, connectors and sinks know only the model and the contracts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("cdc", "connectors", "sinks", "schema_registry")
GROUND_FLOOR = {"cdc.errors", "cdc.schema"}
CONTRACTS = GROUND_FLOOR | {
    f"cdc.{name}" for name in ("position", "change", "group", "contracts", "config", "selection", "units", "state")
}
"""What a connector or a sink may import from cdc."""


def modules(root: Path) -> dict[str, Path]:
    """Every module of the four packages by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Our own modules that a module imports, anywhere in it: functions and type checking too."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (_module(alias.name, known) for alias in node.names if alias.name.split(".")[0] in PACKAGES)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            if base.split(".")[0] in PACKAGES:
                yield from (_module(f"{base}.{alias.name}", known) for alias in node.names)


def _module(dotted: str, known: dict[str, Path]) -> str:
    """The longest prefix that is a module: ``cdc.errors.CdcError`` is in ``cdc.errors``."""
    while dotted not in known and "." in dotted:
        dotted = dotted.rpartition(".")[0]
    return dotted


def graph(root: Path) -> dict[str, set[str]]:
    known = modules(root)
    return {name: set(imports(name, path, known)) - {name} for name, path in known.items()}


def allowed(importer: str, imported: str) -> bool:
    floor, _, _ = importer.partition(".")
    target, _, _ = imported.partition(".")
    if floor == "schema_registry":
        return target == "schema_registry" or imported in GROUND_FLOOR
    if floor == "cdc":
        return target in {"cdc", "schema_registry"}
    same = importer.split(".")[:2] == imported.split(".")[:2]
    return same or target == "schema_registry" or imported in CONTRACTS


def wrong_arrows(arrows: dict[str, set[str]]) -> list[str]:
    return sorted(f"{a} -> {b}" for a, targets in arrows.items() for b in targets if not allowed(a, b))


def cycles(arrows: dict[str, set[str]]) -> list[str]:
    """The cycles that a depth-first walk meets, each as a path."""
    found: list[str] = []
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> None:
        if name in path:
            found.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for target in sorted(arrows.get(name, ())):
                walk(target, [*path, name])
            done.add(name)

    for name in sorted(arrows):
        walk(name, [])
    return found


def plant(root: Path, **files: str) -> dict[str, set[str]]:
    """Write modules, named with ``__`` for each dot, and return their graph."""
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    return graph(root)


def test_every_import_follows_the_arrows() -> None:
    arrows = graph(ROOT)
    assert len(arrows) > 20, "the search for modules is broken"
    assert sum(map(len, arrows.values())) > 50, "the search for imports is broken"
    assert wrong_arrows(arrows) == []


def test_no_imports_go_in_circles() -> None:
    assert cycles(graph(ROOT)) == []


def test_planted_violations_are_found(tmp_path: Path) -> None:
    arrows = plant(
        tmp_path,
        cdc__errors="",
        cdc__engine="def late():\n    from connectors.postgres import source",
        cdc__contracts="import schema_registry.store",
        connectors__postgres__source="from cdc.errors import CdcError\nfrom cdc import engine\nfrom . import rows",
        connectors__postgres__rows="import sinks.lake.sink",
        connectors__mysql__source="from connectors.postgres.rows import f\nfrom ..postgres import source",
        sinks__lake__sink="from cdc.contracts import Sink",
        schema_registry__store="from cdc.errors import CdcError\nfrom cdc.contracts import Sink",
    )
    assert wrong_arrows(arrows) == [
        "cdc.engine -> connectors.postgres.source",
        "connectors.mysql.source -> connectors.postgres.rows",
        "connectors.mysql.source -> connectors.postgres.source",
        "connectors.postgres.rows -> sinks.lake.sink",
        "connectors.postgres.source -> cdc.engine",
        "schema_registry.store -> cdc.contracts",
    ]


def test_a_planted_cycle_is_found(tmp_path: Path) -> None:
    arrows = plant(
        tmp_path, cdc__a="from cdc import b", cdc__b="import cdc.c", cdc__c="from cdc.a import x", cdc__d="import cdc.a"
    )
    assert cycles(arrows) == ["cdc.a -> cdc.b -> cdc.c -> cdc.a"]
