"""One group waits while one is applied, and nothing is ever lost or released twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Event, Thread

import pytest
from engine_parts import Released, group_at

from cdc.engine.handover import Handover

LONG_SECONDS = 20.0
"""More than any wait here takes; a test that needs it has failed."""


@pytest.fixture
def handover() -> Handover:
    return Handover(lambda: None)


class AnnouncedCondition(Condition):
    """Says when somebody waits; whoever notifies then must come after, because the lock is still held."""

    someone_waits = Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.someone_waits.set()
        return super().wait(timeout)


@pytest.fixture
def someone_waits(monkeypatch: pytest.MonkeyPatch) -> Event:
    """Set once a thread waits in a hand-over that is made after this."""
    monkeypatch.setattr("cdc.engine.handover.Condition", AnnouncedCondition)
    monkeypatch.setattr(AnnouncedCondition, "someone_waits", Event())
    return AnnouncedCondition.someone_waits


@contextmanager
def in_a_thread(work: Callable[[], object]) -> Iterator[None]:
    thread = Thread(target=work, daemon=True)
    thread.start()
    yield
    thread.join(LONG_SECONDS / 2)
    assert not thread.is_alive()


def test_there_is_one_place(handover: Handover) -> None:
    first, second = group_at(1), group_at(2)
    assert handover.offer(first, 0.0)
    assert not handover.offer(second, 0.0)
    assert handover.take(0.0) is first
    assert handover.offer(second, 0.0), "while one is applied, the next may wait"
    assert not handover.offer(group_at(3), 0.0)
    handover.done()
    assert handover.take(0.0) is second


def test_an_offer_that_was_not_taken_is_still_the_sources(handover: Handover) -> None:
    released = Released()
    handover.offer(group_at(1), 0.0)
    handover.offer(group_at(2, released=released), 0.0)
    handover.clear()
    assert released.count == 0


def test_nothing_comes_of_an_empty_place(handover: Handover) -> None:
    assert handover.take(0.0) is None
    assert handover.take(0.01) is None


def test_an_offer_waits_for_room(someone_waits: Event) -> None:
    handover = Handover(lambda: None)
    handover.offer(group_at(1), 0.0)
    second, accepted = group_at(2), []
    with in_a_thread(lambda: accepted.append(handover.offer(second, LONG_SECONDS))):
        assert someone_waits.wait(LONG_SECONDS)
        handover.take(0.0)
    assert accepted == [True]
    assert handover.take(0.0) is second


def test_clearing_makes_room_too(someone_waits: Event) -> None:
    handover = Handover(lambda: None)
    handover.offer(group_at(1), 0.0)
    accepted: list[bool] = []
    with in_a_thread(lambda: accepted.append(handover.offer(group_at(2), LONG_SECONDS))):
        assert someone_waits.wait(LONG_SECONDS)
        handover.clear()
    assert accepted == [True]


def test_a_group_is_wanted_exactly_while_the_consumer_waits_and_nothing_is_there() -> None:
    waits = Event()
    handover = Handover(waits.set)
    assert not handover.wanted()
    taken: list[object] = []
    group = group_at(1)
    with in_a_thread(lambda: taken.append(handover.take(LONG_SECONDS))):
        assert waits.wait(LONG_SECONDS)
        assert handover.wanted()
        handover.offer(group, 0.0)
    assert taken == [group]
    assert not handover.wanted(), "it is being applied"
    handover.done()
    assert not handover.wanted()
    assert handover.take(0.0) is None
    assert not handover.wanted(), "nobody waits any more"


def test_the_source_is_called_when_the_consumer_begins_to_wait_and_when_it_takes() -> None:
    calls: list[str] = []
    handover = Handover(lambda: calls.append("room"))
    handover.take(0.0)
    assert calls == ["room"]
    handover.offer(group_at(1), 0.0)
    assert calls == ["room"]
    handover.take(0.0)
    assert calls == ["room", "room"]


def test_a_group_is_released_once_when_it_is_done(handover: Handover) -> None:
    released = Released()
    handover.offer(group_at(1, released=released), 0.0)
    handover.take(0.0)
    assert released.count == 0
    handover.done()
    handover.done()
    handover.clear()
    assert released.count == 1


def test_clearing_releases_what_is_applied_and_what_waits_once_each(handover: Handover) -> None:
    applied, waiting = Released(), Released()
    handover.offer(group_at(1, released=applied), 0.0)
    handover.take(0.0)
    handover.offer(group_at(2, released=waiting), 0.0)
    handover.clear()
    handover.clear()
    assert (applied.count, waiting.count) == (1, 1)
    assert (handover.oldest_commit, handover.size_bytes) == (None, 0)


def test_it_knows_the_oldest_commit_and_the_bytes_of_what_is_not_durable(handover: Handover) -> None:
    assert (handover.oldest_commit, handover.size_bytes) == (None, 0)
    handover.offer(group_at(5, xids=[4, 5], size_bytes=10), 0.0)
    assert (handover.oldest_commit, handover.size_bytes) == (4.0, 10)
    handover.take(0.0)
    handover.offer(group_at(7, size_bytes=100), 0.0)
    assert (handover.oldest_commit, handover.size_bytes) == (4.0, 110)
    handover.done()
    assert (handover.oldest_commit, handover.size_bytes) == (7.0, 100)


def test_every_group_passes_once_and_in_order_between_two_threads(handover: Handover) -> None:
    count = 300
    counters = [Released() for _ in range(count)]
    numbers: list[int] = []

    def consume() -> None:
        while len(numbers) < count:
            group = handover.take(LONG_SECONDS)
            assert group is not None
            numbers.append(int(group.position.display()))
            handover.done()

    with in_a_thread(consume):
        for number, released in enumerate(counters):
            assert handover.offer(group_at(number, released=released), LONG_SECONDS)
    assert numbers == list(range(count))
    assert {released.count for released in counters} == {1}
