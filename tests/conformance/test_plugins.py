"""What every connector and every sink that is registered must be, whatever it talks to."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

from cdc import plugins
from cdc.config import LakeConfig, SourceConfig
from cdc.contracts import Lane, Sink, Source

CONNECTORS = plugins.kinds("cdc.connectors")
SINKS = plugins.kinds("cdc.sinks")
UNREACHABLE = {"postgres": "postgresql://nobody@127.0.0.1:1/nothing"}
"""A URL of each kind at which nobody answers: opening must not try."""


def members(contract: type[Any]) -> set[str]:
    return {name for name in vars(contract) if not name.startswith("_")}


def source_of(kind: str) -> Source:
    plugin = plugins.connector(kind)
    return plugin.open("shop", plugin.config(type=kind, url=UNREACHABLE[kind], tables=["*.*"]))


def sink_of(kind: str) -> Sink:
    plugin = plugins.sink(kind)
    return plugin.open(plugin.config(type=kind, url=UNREACHABLE[kind]))


def folder_of(plugin: Any) -> Path:
    return Path(str(sys.modules[type(plugin).__module__].__file__)).parent


def test_there_is_something_to_conform() -> None:
    assert set(CONNECTORS) >= {"postgres"}
    assert set(SINKS) >= {"postgres"}


@pytest.mark.parametrize("kind", CONNECTORS)
def test_a_connector_has_a_configuration_of_its_own_and_opens_without_connecting(kind: str) -> None:
    assert issubclass(plugins.connector(kind).config, SourceConfig)
    assert source_of(kind).name == "shop"
    assert source_of(kind).health().connected is False


@pytest.mark.parametrize("kind", CONNECTORS)
def test_a_connector_has_every_member_of_the_contract_with_its_parameters(kind: str) -> None:
    assert missing(Source, type(source_of(kind))) == []


@pytest.mark.parametrize("kind", SINKS)
def test_a_sink_and_its_lane_have_every_member_of_the_contract_with_its_parameters(kind: str) -> None:
    sink = sink_of(kind)
    assert issubclass(plugins.sink(kind).config, LakeConfig)
    assert missing(Sink, type(sink)) == []
    assert missing(Lane, type(sink.lane("shop"))) == []


@pytest.mark.parametrize("kind", CONNECTORS)
def test_a_connector_keeps_the_file_names_of_all_others(kind: str) -> None:
    assert {path.name for path in folder_of(plugins.connector(kind)).iterdir()} >= {
        "README.md",
        "__init__.py",
        "config.py",
        "position.py",
        "preflight.py",
        "source.py",
    }


@pytest.mark.parametrize("kind", SINKS)
def test_a_sink_keeps_the_file_names_of_all_others(kind: str) -> None:
    assert {path.name for path in folder_of(plugins.sink(kind)).iterdir()} >= {
        "README.md",
        "__init__.py",
        "config.py",
        "ddl.py",
        "encoding.py",
        "sink.py",
        "types.py",
    }


def missing(contract: type[Any], implementation: type[Any]) -> list[str]:
    """Return the members that the implementation lacks, or takes other parameters for."""
    wrong = []
    for name in sorted(members(contract)):
        wanted, got = getattr(contract, name), getattr(implementation, name, None)
        if got is None:
            wrong.append(f"{name}: missing")
        elif inspect.isfunction(wanted) and list(inspect.signature(wanted).parameters) != list(
            inspect.signature(got).parameters
        ):
            wrong.append(f"{name}: {inspect.signature(got)}")
    return wrong


def test_a_planted_gap_is_found() -> None:
    class Gap:
        def progress(self) -> None: ...

        def apply(self, something_else: Any) -> None: ...

    assert "apply: (self, something_else: 'Any') -> 'None'" in missing(Lane, Gap)
    assert "begin: missing" in missing(Lane, Gap)
    assert not any(line.startswith("progress") for line in missing(Lane, Gap))
