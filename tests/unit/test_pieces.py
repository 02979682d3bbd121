"""Spilling: what a full or missing disk does to the stream."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from cdc.errors import LocalDiskError, RetryableError
from connectors.postgres.pieces import SpillFile


def test_a_disk_without_room_is_tried_again_and_says_where_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(LocalDiskError, match=r"expected room in .*gone, got: No such file") as raised:
        SpillFile()
    assert isinstance(raised.value, RetryableError)
