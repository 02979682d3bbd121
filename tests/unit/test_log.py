from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from cdc import log


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """Leave the root logger as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(log_format: log.LogFormat, level: str = "info") -> tuple[logging.Logger, io.StringIO]:
    stream = io.StringIO()
    log.setup(level, log_format, stream)
    return logging.getLogger("cdc.test"), stream


def test_text_lines_hold_time_level_logger_and_message() -> None:
    logger, stream = logged("text")
    logger.info("copied %s", "public.orders")
    time, _, rest = stream.getvalue().partition(" ")
    assert time.endswith("Z")
    assert rest == "INFO cdc.test: copied public.orders\n"


def test_json_lines_hold_what_extra_held() -> None:
    logger, stream = logged("json")
    logger.warning("slow %s", "apply", extra={"source": "shop", "lag_seconds": 1.5, "kind": ValueError})
    entry = json.loads(stream.getvalue())
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "warning",
        "logger": "cdc.test",
        "message": "slow apply",
        "source": "shop",
        "lag_seconds": 1.5,
        "kind": "<class 'ValueError'>",
    }


def test_a_traceback_stays_in_its_json_line() -> None:
    logger, stream = logged("json")
    logger.error("failed", exc_info=ValueError("broken"))
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: broken" in json.loads(line)["exception"]


def test_records_below_the_level_are_left_out() -> None:
    logger, stream = logged("text", "warning")
    logger.info("no")
    logger.warning("yes")
    assert stream.getvalue().count("\n") == 1
