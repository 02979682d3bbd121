"""The tree of errors: drawn as it is, picklable, and named for what it holds."""

from __future__ import annotations

import inspect
import pickle
import re
from copy import copy

import pytest

from cdc import errors
from cdc.errors import CdcError, ConfigError, DataError, OperatorError, RetryableError

CLASSES = sorted(
    (kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, CdcError)),
    key=lambda kind: kind.__name__,
)


def example(kind: type[CdcError]) -> CdcError:
    """Return one with every field set to something that isn't its default."""
    if issubclass(kind, ConfigError):
        return kind("message", hint="do this", path="sources.shop")
    if issubclass(kind, OperatorError):
        return kind("message", hint="do this")
    if issubclass(kind, RetryableError):
        return kind("message", retry_after_seconds=1.5)
    if issubclass(kind, DataError):
        return kind("message", table="public.orders")
    return kind("message")


def drawn_tree() -> dict[str, str]:
    """Return the parents in the picture in the module's docstring."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)(\w+Error)\b", line)
        if match:
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            if depth:
                parents[match[2]] = path[depth - 1]
    return parents


def test_all_classes_are_found() -> None:
    assert len(CLASSES) > 10


def test_the_tree_is_drawn_as_it_is() -> None:
    assert drawn_tree() == {kind.__name__: kind.__mro__[1].__name__ for kind in CLASSES if kind is not CdcError}


@pytest.mark.parametrize("kind", CLASSES)
def test_its_name_ends_in_error_and_it_says_what_it_is(kind: type[CdcError]) -> None:
    assert kind.__name__.endswith("Error")
    assert kind.__doc__


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_survives_pickling_with_its_fields(kind: type[CdcError], protocol: int) -> None:
    error = example(kind)
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is kind
    assert (str(again), again.args, again.__dict__) == (str(error), error.args, error.__dict__)
    assert vars(copy(error)) == vars(error)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_argument_is_a_field(kind: type[CdcError]) -> None:
    arguments = inspect.signature(kind.__init__).parameters.keys() - {"self", "message", "args", "kwargs"}
    assert arguments == vars(example(kind)).keys()


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if issubclass(kind, OperatorError)])
def test_a_person_always_hears_what_to_do(kind: type[CdcError]) -> None:
    with pytest.raises(TypeError, match="hint"):
        kind("message")


def test_what_is_not_known_is_none() -> None:
    assert RetryableError("message").retry_after_seconds is None
    assert DataError("message").table is None
    assert ConfigError("message", hint="do this").path == ""


def test_each_leaf_says_one_thing_to_do() -> None:
    axis = {RetryableError, OperatorError, DataError}
    for kind in CLASSES:
        assert kind is CdcError or len(axis & set(kind.__mro__)) == 1
