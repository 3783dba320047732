"""A keyed work queue: a key waits once however often it is added, and is never processed twice at once.

Delays and back-off are part of it, so nothing else needs timers. Of the keys that are due, the one with the earliest
deadline is next (Liu and Layland 1973): what has slack gives way to what has none, and starves nobody. It reads time
only through the clock it is given.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from trainrun_operator.clock import Clock

K = TypeVar("K", bound=Hashable)


class _Wish(NamedTuple):
    """When a key may be processed, and by when it should be; monotonic times."""

    due: float
    deadline: float
    is_patient: bool
    """Whether it has been added with slack only."""
    number: int
    """Of this wish: entries of older ones are passed over."""


class WorkQueue(Generic[K]):
    """Thread-safe; `get` blocks, `pop_due` does not (for the simulator)."""

    def __init__(
        self, clock: Clock, *, first_seconds: float, longest_seconds: float, patient_at_once: int | None = None
    ) -> None:
        """Back-off from and to; of the keys with slack so many are processed at once, None: any number."""
        self._clock = clock
        self._first = first_seconds
        self._longest = longest_seconds
        self._patient_at_once = float("inf") if patient_at_once is None else patient_at_once
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        """Callers of `get` that wait to be called."""
        self._timer = threading.Condition(self._lock)
        """The one that waits for the next due time: if all did, each would wake all of them."""
        self._idle_count = 0
        self._timer_until: float | None = None
        """None: nobody watches the clock."""
        self._wishes: dict[K, _Wish] = {}
        self._coming: list[tuple[float, int, K]] = []
        """By due time, with the wish's number."""
        self._urgent: list[tuple[float, int, K]] = []
        """Due, without slack, by deadline."""
        self._patient: list[tuple[float, int, K]] = []
        """Due, with slack, by deadline."""
        self._count = 0
        self._busy: set[K] = set()
        self._busy_patient: set[K] = set()
        """Those of them that were taken with slack."""
        self._failures: dict[K, int] = {}
        self._is_closed = False

    def add(self, key: K, *, delay_seconds: float = 0.0, slack_seconds: float = 0.0) -> None:
        """Have the key processed after the delay, or earlier if it already waits for less.

        While others are due it may wait for the slack, too, from then on.
        """
        with self._lock:
            due = self._clock.monotonic() + max(0.0, delay_seconds)
            deadline, is_patient, old = due + slack_seconds, slack_seconds > 0.0, self._wishes.get(key)
            if old is not None:
                due, deadline = min(old.due, due), min(old.deadline, deadline)
                is_patient = is_patient and old.is_patient
            if old is None or (due, deadline, is_patient) != old[:3]:
                self._count += 1
                self._wishes[key] = _Wish(due, deadline, is_patient, self._count)
                self._await(key, self._wishes[key])

    def has(self, key: K) -> bool:
        """Whether the key waits or is being processed."""
        with self._lock:
            return key in self._wishes or key in self._busy

    def retry(self, key: K) -> float:
        """Have the key processed again after its back-off, which is returned in seconds."""
        with self._lock:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
        delay = min(self._longest, self._first * 2.0 ** min(failures, 32))
        self.add(key, delay_seconds=delay)
        return delay

    def forget_failures(self, key: K) -> None:
        """The key was processed well: its back-off starts again."""
        with self._lock:
            self._failures.pop(key, None)

    def pop_due(self) -> K | None:
        """A key that is due now and not being processed, or None. The caller must call `done`."""
        with self._lock:
            return self._pop()

    def get(self) -> K | None:
        """Wait for a due key; None when the queue is closed. The caller must call `done`."""
        with self._lock:
            while not self._is_closed:
                key = self._pop()
                if key is not None:
                    if self._timer_until is None:
                        self._call()  # somebody else watches the clock
                    return key
                self._wait()
            return None

    def done(self, key: K) -> None:
        """The key is no longer being processed; what was added meanwhile is due."""
        with self._lock:
            self._busy.discard(key)
            self._busy_patient.discard(key)
            if key in self._wishes:
                self._await(key, self._wishes[key])

    def next_due_at(self) -> float | None:
        """Monotonic time of the next key that may be processed; None if none waits."""
        with self._lock:
            return min((wish.due for key, wish in self._wishes.items() if key not in self._busy), default=None)

    def depth(self) -> int:
        """Keys that are due and wait for somebody to process them."""
        with self._lock:
            now = self._clock.monotonic()
            return sum(wish.due <= now and key not in self._busy for key, wish in self._wishes.items())

    def close(self) -> None:
        """Let every waiting `get` return None."""
        with self._lock:
            self._is_closed = True
            self._idle.notify_all()
            self._timer.notify_all()

    def _await(self, key: K, wish: _Wish) -> None:
        """Put the wish where it is found, and call somebody if it is due or the next to be."""
        if key in self._busy:
            return  # `done` puts it there
        heapq.heappush(self._coming, (wish.due, wish.number, key))
        is_called = wish.due <= self._clock.monotonic() and self._call()
        if not is_called and self._timer_until is not None and wish.due < self._timer_until:
            self._timer.notify()

    def _call(self) -> bool:
        """Call somebody who waits for that; whether there was anybody."""
        if not self._idle_count:
            return False
        self._idle_count -= 1  # here, so that the next call is not for the same one
        self._idle.notify()
        return True

    def _wait(self) -> None:
        """Until called, or, if nobody else watches the clock, until the next key is due."""
        if self._timer_until is not None:
            self._idle_count += 1
            self._idle.wait()
            return
        self._timer_until = self._coming[0][0] if self._coming else float("inf")
        seconds = self._timer_until - self._clock.monotonic()
        self._timer.wait(max(0.0, seconds) if self._coming else None)
        self._timer_until = None

    def _pop(self) -> K | None:
        """The due key with the earliest deadline among those that may be processed."""
        self._sort_due()
        may_be_patient = bool(self._patient) and len(self._busy_patient) < self._patient_at_once
        if not self._urgent and not may_be_patient:
            return None
        is_patient = may_be_patient and (not self._urgent or self._patient[0] < self._urgent[0])
        _, _, key = heapq.heappop(self._patient if is_patient else self._urgent)
        del self._wishes[key]
        self._busy.add(key)
        if is_patient:
            self._busy_patient.add(key)
        return key

    def _sort_due(self) -> None:
        """Move what is due to its heap; afterwards the first of each heap is a newest wish."""
        now = self._clock.monotonic()
        while self._coming and self._coming[0][0] <= now:
            _, number, key = heapq.heappop(self._coming)
            if self._is_newest(key, number):
                wish = self._wishes[key]
                heap = self._patient if wish.is_patient else self._urgent
                heapq.heappush(heap, (wish.deadline, number, key))
        for heap in (self._urgent, self._patient):
            while heap and not self._is_newest(heap[0][2], heap[0][1]):
                heapq.heappop(heap)

    def _is_newest(self, key: K, number: int) -> bool:
        wish = self._wishes.get(key)
        return wish is not None and wish.number == number and key not in self._busy
