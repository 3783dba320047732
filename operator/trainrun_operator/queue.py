"""A keyed work queue: a key waits once however often it is added, and is never processed twice at once.

Delays and back-off are part of it, so nothing else needs timers. It reads time only through the clock it is given.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Hashable
from typing import Generic, TypeVar

from trainrun_operator.clock import Clock

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Thread-safe; `get` blocks, `pop_due` does not (for the simulator)."""

    def __init__(self, clock: Clock, *, first_seconds: float, longest_seconds: float) -> None:
        self._clock = clock
        self._first = first_seconds
        self._longest = longest_seconds
        self._changed = threading.Condition()
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0
        self._busy: set[K] = set()
        self._failures: dict[K, int] = {}
        self._is_closed = False

    def add(self, key: K, *, delay_seconds: float = 0.0) -> None:
        """Have the key processed after the delay, or earlier if it already waits for less."""
        with self._changed:
            due = self._clock.monotonic() + max(0.0, delay_seconds)
            if key in self._due and self._due[key] <= due:
                return
            self._due[key] = due
            self._count += 1
            heapq.heappush(self._heap, (due, self._count, key))
            self._changed.notify()

    def has(self, key: K) -> bool:
        """Whether the key waits or is being processed."""
        with self._changed:
            return key in self._due or key in self._busy

    def retry(self, key: K) -> float:
        """Have the key processed again after its back-off, which is returned in seconds."""
        with self._changed:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
        delay = min(self._longest, self._first * 2.0 ** min(failures, 32))
        self.add(key, delay_seconds=delay)
        return delay

    def forget_failures(self, key: K) -> None:
        """The key was processed well: its back-off starts again."""
        with self._changed:
            self._failures.pop(key, None)

    def pop_due(self) -> K | None:
        """A key that is due now and not being processed, or None. The caller must call `done`."""
        with self._changed:
            return self._pop()

    def get(self) -> K | None:
        """Wait for a due key; None when the queue is closed. The caller must call `done`."""
        with self._changed:
            while not self._is_closed:
                key = self._pop()
                if key is not None:
                    return key
                next_due = self._next_due()
                wait = None if next_due is None else max(0.0, next_due - self._clock.monotonic())
                self._changed.wait(wait)
            return None

    def done(self, key: K) -> None:
        """The key is no longer being processed; what was added meanwhile is due."""
        with self._changed:
            self._busy.discard(key)
            self._changed.notify()

    def next_due_at(self) -> float | None:
        """Monotonic time of the next key that may be processed; None if none waits."""
        with self._changed:
            return self._next_due()

    def depth(self) -> int:
        """Keys that are due and wait for somebody to process them."""
        with self._changed:
            now = self._clock.monotonic()
            return sum(due <= now and key not in self._busy for key, due in self._due.items())

    def close(self) -> None:
        """Let every waiting `get` return None."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _next_due(self) -> float | None:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)  # overtaken by an earlier `add`, or processed
        if self._heap and self._heap[0][2] not in self._busy:
            return self._heap[0][0]
        return min((due for key, due in self._due.items() if key not in self._busy), default=None)

    def _pop(self) -> K | None:
        """Pop the heap's first due entry; entries that an earlier `add` overtook are dropped on the way."""
        now = self._clock.monotonic()
        held: list[tuple[float, int, K]] = []
        found: K | None = None
        while self._heap and self._heap[0][0] <= now:
            entry = heapq.heappop(self._heap)
            due, _, key = entry
            if self._due.get(key) != due:
                continue
            if key in self._busy:
                held.append(entry)
                continue
            found = key
            break
        for entry in held:
            heapq.heappush(self._heap, entry)
        if found is not None:
            del self._due[found]
            self._busy.add(found)
        return found
