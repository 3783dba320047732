"""The keyed work queue."""

from __future__ import annotations

import threading

import pytest
from trainrun_operator.clock import SystemClock
from trainrun_operator.queue import WorkQueue
from trainrun_operator.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """Time by hand."""
    return FakeClock()


@pytest.fixture
def queue(clock: FakeClock) -> WorkQueue[str]:
    """An empty queue."""
    return WorkQueue(clock, first_seconds=1.0, longest_seconds=8.0)


def test_a_key_waits_once_however_often_it_is_added(queue):
    """Deduplicated."""
    for _ in range(3):
        queue.add("a")
    assert queue.has("a")
    assert [queue.pop_due(), queue.pop_due()] == ["a", None]
    assert queue.has("a"), "it is being processed"
    queue.done("a")
    assert not queue.has("a")


def test_keys_come_in_the_order_of_their_due_times(queue, clock):
    """Not of their addition."""
    queue.add("late", delay_seconds=2)
    queue.add("soon", delay_seconds=1)
    assert queue.pop_due() is None
    assert queue.next_due_at() == 1
    clock.advance(5)
    assert [queue.pop_due(), queue.pop_due()] == ["soon", "late"]


def test_an_earlier_wish_overtakes_a_later_one_but_not_the_reverse(queue, clock):
    """The next wake time never delays an event."""
    queue.add("a", delay_seconds=10)
    queue.add("a")
    queue.add("a", delay_seconds=10)
    assert queue.pop_due() == "a"
    queue.done("a")
    clock.advance(20)
    assert queue.pop_due() is None


def test_a_key_is_never_processed_twice_at_once(queue):
    """What is added meanwhile is due when it is done."""
    queue.add("a")
    assert queue.pop_due() == "a"
    queue.add("a")
    queue.add("b")
    assert queue.pop_due() == "b"
    assert queue.pop_due() is None
    assert queue.next_due_at() is None
    queue.done("a")
    assert queue.pop_due() == "a"


def test_retries_back_off_until_a_success(queue, clock):
    """1, 2, 4, 8, 8 s; then from the start."""
    assert [queue.retry("a") for _ in range(5)] == [1, 2, 4, 8, 8]
    queue.forget_failures("a")
    assert queue.retry("a") == 1


def test_get_waits_for_a_due_key_and_ends_with_the_queue():
    """With the real clock: one key after a delay, then the end."""
    queue: WorkQueue[str] = WorkQueue(SystemClock(), first_seconds=1.0, longest_seconds=8.0)
    got: list[str | None] = []

    def work() -> None:
        while True:
            got.append(queue.get())
            if got[-1] is None:
                return
            queue.done("a")
            queue.close()

    thread = threading.Thread(target=work)
    thread.start()
    queue.add("a", delay_seconds=0.05)
    thread.join(10)
    assert got == ["a", None]


def test_the_next_due_time_passes_over_what_is_processed_or_overtaken(queue, clock):
    """A key that is being processed has to wait for its `done`."""
    queue.add("a", delay_seconds=9)
    queue.add("a", delay_seconds=1)
    queue.add("b", delay_seconds=5)
    assert queue.next_due_at() == 1
    clock.advance(1)
    assert queue.pop_due() == "a"
    queue.add("a")
    assert queue.next_due_at() == 5
    queue.done("a")
    assert queue.next_due_at() == 1
