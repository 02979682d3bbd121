from __future__ import annotations

from pathlib import Path

import pytest
from cli_shell import Shell
from fake_databases import GOOD, World


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World().install(monkeypatch)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CDC_CONFIG", raising=False)
    shell = Shell(tmp_path)
    shell.write(GOOD + "http: null\n")
    return shell
