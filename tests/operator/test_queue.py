"""The keyed work queue."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
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


def test_what_has_slack_gives_way_to_what_has_none(queue, clock):
    """For as long as its slack and no longer, and only to keys that are due."""
    queue.add("tidy", slack_seconds=5)
    queue.add("later", delay_seconds=1)
    clock.advance(1)
    queue.add("urgent")
    assert [queue.pop_due(), queue.pop_due(), queue.pop_due()] == ["later", "urgent", "tidy"]
    queue.add("old", slack_seconds=5)
    clock.advance(6)
    queue.add("new")
    assert [queue.pop_due(), queue.pop_due()] == ["old", "new"]


def test_slack_delays_nothing_when_nothing_else_is_due(queue, clock):
    """The next key is the only one."""
    queue.add("b", delay_seconds=1)
    queue.add("a", slack_seconds=5)
    assert queue.pop_due() == "a"
    assert queue.pop_due() is None


def test_keys_with_slack_leave_some_workers_to_the_others(clock):
    """Each of them may take seconds, in which a fault would wait."""
    queue: WorkQueue[str] = WorkQueue(clock, first_seconds=1.0, longest_seconds=8.0, patient_at_once=2)
    for key in ("a", "b", "c"):
        queue.add(key, slack_seconds=5)
    assert [queue.pop_due(), queue.pop_due(), queue.pop_due()] == ["a", "b", None]
    clock.advance(9)
    queue.add("urgent")
    assert [queue.pop_due(), queue.pop_due()] == ["urgent", None]
    queue.done("urgent")
    assert queue.pop_due() is None
    queue.add("c")
    assert queue.pop_due() == "c", "it has become urgent"
    queue.add("d", slack_seconds=5)
    queue.done("a")
    assert [queue.pop_due(), queue.pop_due()] == ["d", None]


@pytest.mark.parametrize("is_urgent_first", [True, False])
def test_a_key_that_was_urgent_once_stays_so(queue, is_urgent_first):
    """Whatever is added after or before that."""
    queue.add("other", slack_seconds=1)
    for slack in (0, 5) if is_urgent_first else (5, 0):
        queue.add("a", slack_seconds=slack)
    assert queue.pop_due() == "a"
    queue.done("a")
    assert [queue.pop_due(), queue.pop_due()] == ["other", None]


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


def test_many_workers_take_every_wish_and_share_one_clock():
    """With the real clock: each key that is added is taken, never by two at once, and all workers end."""
    queue: WorkQueue[int] = WorkQueue(SystemClock(), first_seconds=1.0, longest_seconds=8.0, patient_at_once=3)
    lock, at_work, taken = threading.Lock(), set(), Counter()
    both, all_taken = [], threading.Event()

    def work() -> None:
        while (key := queue.get()) is not None:
            with lock:
                both.extend({key} & at_work)
                at_work.add(key)
            time.sleep(0.0005)
            with lock:
                at_work.discard(key)
                taken[key] += 1
                if len(taken) == 200:
                    all_taken.set()
            queue.done(key)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for key in range(200):
        queue.add(key, delay_seconds=key % 7 * 0.01, slack_seconds=key % 3)
        queue.add(key % 5)
    assert all_taken.wait(20), f"{200 - len(taken)} of 200 keys were never taken"
    queue.close()
    for worker in workers:
        worker.join(20)
    assert not any(worker.is_alive() for worker in workers)
    assert both == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4), st.integers(0, 4), st.booleans()), max_size=30))
def test_the_queue_equals_a_list_of_wishes(steps: list[tuple[str, int, int, bool]]) -> None:
    """Against a model that looks at all wishes each time: earliest deadline among those that are due."""
    clock = FakeClock()
    queue: WorkQueue[str] = WorkQueue(clock, first_seconds=1.0, longest_seconds=8.0)
    wishes: dict[str, tuple[float, float]] = {}
    busy: set[str] = set()
    for key, delay, slack, is_done in steps:
        queue.add(key, delay_seconds=delay, slack_seconds=slack)
        due = clock.monotonic() + delay
        old = wishes.get(key, (99.0, 99.0))
        wishes[key] = (min(old[0], due), min(old[1], due + slack))
        clock.advance(1)
        ready = {k: w[1] for k, w in wishes.items() if w[0] <= clock.monotonic() and k not in busy}
        assert queue.next_due_at() == min((w[0] for k, w in wishes.items() if k not in busy), default=None)
        assert queue.depth() == len(ready)
        got = queue.pop_due()
        assert (got in ready and ready[got] == min(ready.values())) if ready else got is None
        if got is not None:
            del wishes[got]
            busy.add(got)
        if is_done and busy:
            queue.done(sorted(busy)[0])
            busy.discard(sorted(busy)[0])


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
