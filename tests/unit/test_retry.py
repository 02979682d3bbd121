"""How long to wait after which error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.engine.retry import (
    FIRST_DELAY_SECONDS,
    LONGEST_DELAY_SECONDS,
    OPERATOR_DELAY_SECONDS,
    delay_seconds,
    state_after,
)
from cdc.errors import (
    CdcError,
    ConfigError,
    DataError,
    DecodeError,
    OperatorError,
    SinkUnavailableError,
    SourceUnavailableError,
)
from cdc.status import SourceState

GONE = SourceUnavailableError("gone")


@given(st.integers(1, 10**6))
def test_waiting_grows_to_a_bound_and_is_never_nothing(attempt: int) -> None:
    longest = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** min(attempt - 1, 50))
    assert 0.75 * longest <= delay_seconds(GONE, attempt) <= longest


def test_engines_that_lost_one_lake_do_not_come_back_together() -> None:
    assert len({delay_seconds(GONE, 5) for _ in range(20)}) > 10


def test_an_error_that_says_when_to_try_again_is_obeyed() -> None:
    assert delay_seconds(SinkUnavailableError("full", retry_after_seconds=42.0), 1) == 42.0
    assert delay_seconds(SinkUnavailableError("full", retry_after_seconds=0.0), 9) == 0.0


@pytest.mark.parametrize("attempt", [1, 100])
def test_a_person_is_waited_for_at_a_steady_pace(attempt: int) -> None:
    assert delay_seconds(OperatorError("wrong", hint="mend it"), attempt) == OPERATOR_DELAY_SECONDS


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (GONE, SourceState.RETRYING),
        (SinkUnavailableError("gone"), SourceState.RETRYING),
        (ConfigError("wrong", hint="mend it"), SourceState.FAILED),
        (DataError("bad"), SourceState.FAILED),
        (DecodeError("bad"), SourceState.FAILED),
    ],
)
def test_only_what_passes_by_itself_is_called_retrying(error: CdcError, state: SourceState) -> None:
    assert state_after(error) is state
