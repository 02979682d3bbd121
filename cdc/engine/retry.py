"""The one table that says how long to wait after which error, and what to call the state meanwhile."""

from __future__ import annotations

import random

from cdc.errors import CdcError, OperatorError, RetryableError
from cdc.status import SourceState

FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 15.0
OPERATOR_DELAY_SECONDS = 30.0
"""How often to look whether a person has acted: often enough to come back by itself, seldom enough to spare the log."""


def delay_seconds(error: CdcError, attempt: int) -> float:
    """Return how long to wait before trying again.

    Args:
        error: what went wrong.
        attempt: how many times in a row something has, from 1.
    """
    if isinstance(error, OperatorError):
        return OPERATOR_DELAY_SECONDS
    if isinstance(error, RetryableError) and error.retry_after_seconds is not None:
        return error.retry_after_seconds
    longest = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(attempt - 1, 16))
    return longest * random.uniform(0.75, 1.0)  # noqa: S311 - spreads engines that lost one lake together


def state_after(error: CdcError) -> SourceState:
    """Return what to call a source that this error has stopped."""
    return SourceState.RETRYING if isinstance(error, RetryableError) else SourceState.FAILED
