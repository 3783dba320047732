"""Asks agents for progress, outside the queue, and calls for a pass only when an answer crosses a threshold.

One call per run: worker 0 speaks for the whole run. Peers are asked directly when worker 0 is silent or something
is suspect. Silence is recorded as silence; it is for the rules to say what it means.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from trainrun_api.contract import Label

from trainrun_operator.clock import Clock
from trainrun_operator.cluster import Cluster, Key, Object
from trainrun_operator.core.decision import Watch
from trainrun_operator.core.observed import REFUSED, ProgressFacts
from trainrun_operator.errors import ClusterError
from trainrun_operator.job_controller import REPLICA_INDEX_LABEL
from trainrun_operator.rate_limit import RateLimit
from trainrun_operator.senses import Senses
from trainrun_operator.settings import Settings

ASKED_PER_ROUND = 16
"""Agents asked directly in one round; worker 0 speaks for the rest, and the longest unheard come first."""

HEARD_SECONDS = 2.0
"""Two heartbeats: a peer that worker 0 has heard within them need not be asked, so that of a run with a lost node two
agents are asked and not all."""

AGAIN_SECONDS = 0.25
"""A run that became suspect while it is being asked gets its own question as soon as that is over, and not in 5 s."""

BATCH_SECONDS = 1.0
"""Healthy runs are asked together at each full second: a thousand wake-ups a minute would be most of an idle CPU."""


@dataclass
class _Target:
    """One run that is watched."""

    watch: Watch
    due: float
    passed_at: float


class Poller:
    """`run_due` asks whoever is due; a thread of the operator, or the simulator, calls it."""

    def __init__(
        self,
        cluster: Cluster,
        clock: Clock,
        settings: Settings,
        senses: Senses,
        *,
        enqueue: Callable[[Key], None],
        on_error: Callable[[Key, Exception], None],
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._settings = settings
        self._senses = senses
        self._enqueue = enqueue
        self._on_error = on_error
        self._asking: set[Key] = set()
        self._is_interrupted = False
        self._wakes_at = 0.0
        """Until when `wait` sleeps."""
        self._targets: dict[Key, _Target] = {}
        rate = settings.progress_passes_per_second
        self._turns = RateLimit(rate, max(1.0, rate))
        """Passes of healthy runs; a second's worth at once."""
        self._line: dict[Key, None] = {}
        """Runs that wait for such a turn, the first one first."""
        self._turn_due = 0.0
        """When the next one may be taken, while somebody waits."""
        self._changed = threading.Condition()

    def watch(self, key: Key, watch: Watch | None) -> None:
        """Take over the thresholds of the newest decision; None: there is nobody to ask."""
        with self._changed:
            if watch is None:
                self._targets.pop(key, None)
                return
            now, old = self._clock.monotonic(), self._targets.get(key)
            due = self._next_due(now, watch)
            if old is None or old.watch.attempt != watch.attempt or (watch.is_suspect and not old.watch.is_suspect):
                due = now
            elif old.due < due:
                due = old.due
            self._targets[key] = _Target(watch, due, now)
            if due < self._wakes_at:
                self._changed.notify()

    def next_due_at(self) -> float | None:
        """Monotonic time of the next call; None if nobody is watched."""
        with self._changed:
            return self._earliest()

    def wait(self, longest_seconds: float) -> None:
        """Sleep until the next call is due, a watch changed, or that long."""
        with self._changed:
            now = self._clock.monotonic()
            due = self._earliest()
            self._wakes_at = now + longest_seconds if due is None else min(now + longest_seconds, due)
            if self._wakes_at > now and not self._is_interrupted:
                self._changed.wait(self._wakes_at - now)

    def interrupt(self) -> None:
        """End a `wait` now, and any later one at once."""
        with self._changed:
            self._is_interrupted = True
            self._changed.notify_all()

    def run_due(self, pool: ThreadPoolExecutor | None = None) -> None:
        """Ask every run that is due; in `pool` if one is given, else here."""
        self._give_turns()
        now = self._clock.monotonic()
        with self._changed:
            due = [(key, target.watch) for key, target in self._targets.items() if target.due <= now]
            for key, watch in due:
                is_asking = key in self._asking  # with an older watch, which may ask less
                self._targets[key].due = now + AGAIN_SECONDS if is_asking else self._next_due(now, watch)
        for key, watch in due:
            if pool is None:
                self.poll(key, watch)
            elif key not in self._asking:  # silent agents of one run must not delay the others
                self._asking.add(key)
                pool.submit(self._poll_apart, key, watch)

    def poll(self, key: Key, watch: Watch) -> None:
        """Ask one run's agents and enqueue it if that is news."""
        try:
            pods = self._running_pods(key, watch.attempt)
        except ClusterError:
            return  # the pass that the failure of other calls causes will tell
        facts: ProgressFacts | None = None
        speaks = False
        told: frozenset[object] = frozenset()
        for place, (index, pod) in enumerate(pods[:ASKED_PER_ROUND]):
            if facts is not None and self._is_just_heard(facts, index):
                continue
            answer = self._cluster.fetch_progress(pod, timeout_seconds=self._settings.poll_timeout_seconds)
            facts = self._senses.note_answer(key, watch.attempt, index, answer, self._clock.now())
            if answer.record is not None and not watch.ask_all:
                break
            speaks = speaks or (place == 0 and answer.record is not None)
            if speaks and not told:  # what worker 0 says, or a peer's silence, need not wait for the others' answers
                told = self._tell(key, facts, watch, told)
        if facts is None:
            return
        self._tell(key, facts, watch, told)
        self._give_turns(key)

    def _tell(self, key: Key, facts: ProgressFacts, watch: Watch, told: frozenset[object]) -> frozenset[object]:
        """Call for a pass if there is more news than has been told; the news.

        Not for the same again: while that pass runs it would be due at once after it, before those of other runs.
        """
        news = _news(facts, watch)
        if news - told:
            self._enqueue(key)
        return news

    def _is_just_heard(self, facts: ProgressFacts, index: int) -> bool:
        heard_at = facts.agents[index].heard_at if index in facts.agents else None
        return heard_at is not None and (self._clock.now() - heard_at).total_seconds() <= HEARD_SECONDS

    def _poll_apart(self, key: Key, watch: Watch) -> None:
        """In a thread of the pool, where nobody sees an exception."""
        try:
            self.poll(key, watch)
        except Exception as error:  # a bug that one run brings out must not silence the others
            self._on_error(key, error)
        finally:
            self._asking.discard(key)

    def _running_pods(self, key: Key, attempt: int) -> list[tuple[int, Object]]:
        """Pods of the attempt that run: worker 0, then the others, the longest unheard first."""
        agents = self._senses.progress(key, attempt).agents
        pods = [
            (int(pod["metadata"]["labels"].get(REPLICA_INDEX_LABEL, "0")), pod)
            for pod in self._cluster.list_pods(key)
            if pod["metadata"]["labels"].get(Label.ATTEMPT) == str(attempt)
            and (pod.get("status") or {}).get("phase") == "Running"
        ]

        def turn(entry: tuple[int, Object]) -> tuple[bool, float, int]:
            index, _ = entry
            heard_at = agents[index].heard_at if index in agents else None
            return index != 0, heard_at.timestamp() if heard_at else 0.0, index

        return sorted(pods, key=turn)

    def _give_turns(self, asked: Key | None = None) -> None:
        """Have healthy runs looked at, which renews their progress: so many each second of all runs together.

        A run stands in line when it is asked some time after its last pass.
        """
        served: list[Key] = []
        with self._changed:
            now = self._clock.monotonic()
            if asked is not None and self._is_old(asked, now):
                self._line.setdefault(asked)
            while self._line:
                first = next(iter(self._line))
                if self._is_old(first, now):
                    if not self._turns.may_take(now):
                        self._await_turn(now)
                        break
                    served.append(first)
                del self._line[first]
        for key in served:
            self._enqueue(key)

    def _await_turn(self, now: float) -> None:
        """Have the poller wake for the next turn, unless it will: each answer of many runs comes by here."""
        if self._turn_due <= now:
            self._turn_due = now + 1.0 / self._settings.progress_passes_per_second
            if self._turn_due < self._wakes_at:
                self._changed.notify()

    def _earliest(self) -> float | None:
        """When somebody is to be asked or has a turn; under the lock."""
        due = min((t.due for t in self._targets.values()), default=None)
        return min(due, self._turn_due) if self._line and due is not None else due

    def _is_old(self, key: Key, now: float) -> bool:
        target = self._targets.get(key)
        return target is not None and now - target.passed_at >= self._settings.progress_pass_seconds

    def _next_due(self, now: float, watch: Watch) -> float:
        if watch.is_suspect:
            return now + self._settings.poll_suspect_seconds
        due = now + self._settings.poll_healthy_seconds
        return (
            due
            if self._settings.poll_healthy_seconds <= BATCH_SECONDS
            else math.ceil(due / BATCH_SECONDS) * BATCH_SECONDS
        )


def _news(facts: ProgressFacts, watch: Watch) -> frozenset[object]:
    """What of the answers crosses a threshold of the last decision."""
    heard, silent = facts.heard_indices, facts.silent_indices
    refusing = frozenset(i for i in silent if facts.agents[i].blind_because == REFUSED)
    found: dict[object, bool] = {
        ("heard", heard): heard != watch.heard_indices,
        ("silent", silent, refusing): not silent <= watch.silent_indices,
        ("schema", facts.unknown_schema): facts.unknown_schema is not None,
    }
    if (record := facts.record) is not None:
        age, limit = record.step_age_seconds, watch.step_age_limit_seconds
        found |= {
            ("phase", record.phase): record.phase != watch.phase,
            ("restarts", record.inplace_restarts): record.inplace_restarts != watch.inplace_restarts,
            "first step": watch.first_step_missing and age is not None,
            "stalled": age is not None and limit is not None and age > limit,
        }
    return frozenset(what for what, is_crossed in found.items() if is_crossed)
