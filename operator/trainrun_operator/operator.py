"""The running operator: watch events and timers become keys, keys become passes.

It holds no rule and remembers no decision: killed anywhere and started again, it goes on. Everything can also be
driven step by step without threads (`process_due`, `poller.run_due`), which is how the simulator runs it.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from trainrun_api.contract import Label

from trainrun_operator.clock import Clock
from trainrun_operator.cluster import Cluster, Key, Object, WatchEvent
from trainrun_operator.core.observed import NodeFacts
from trainrun_operator.core.times import to_text
from trainrun_operator.errors import ClusterError, Conflict, NotFound, Unavailable
from trainrun_operator.facts import node_facts
from trainrun_operator.gather import Gatherer
from trainrun_operator.poller import Poller
from trainrun_operator.queue import WorkQueue
from trainrun_operator.reconcile import Journal, ObserveAction, reconcile
from trainrun_operator.senses import Senses
from trainrun_operator.settings import Settings

LONGEST_WAIT_SECONDS = 60.0
"""Bound of every wait, so that a lost notification costs a minute at most."""

GATHERING_SECONDS = 1.0
"""Pods that come, get their nodes and begin to run are looked at together: 512 of them would be as many passes, each
with a status to write, just when the API server makes those pods. Nothing of the run waits for it."""

SLACK_SECONDS = 5.0
"""What comes along, and what time brings, gives way for so long to what a fault or a user calls for. With 80 runs hit
at once, the stops of old jobs (a second and more each) stood before the next jobs of others."""


class Operator:
    """Passes over runs, in threads or step by step."""

    def __init__(
        self,
        cluster: Cluster,
        clock: Clock,
        settings: Settings,
        journal: Journal,
        *,
        observe_pass: Callable[[str, float], None] = lambda outcome, seconds: None,
        observe_action: ObserveAction = lambda action, outcome: None,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._settings = settings
        self._journal = journal
        self._observe_pass = observe_pass
        self._observe_action = observe_action
        self.senses = Senses(settings.peer_silent_seconds, settings.outage_memory_seconds)
        self.queue: WorkQueue[Key] = WorkQueue(
            clock,
            first_seconds=settings.retry_first_seconds,
            longest_seconds=settings.retry_longest_seconds,
            patient_at_once=max(1, settings.workers // 2),  # a stop takes seconds: not all may be busy with them
        )
        self.poller = Poller(cluster, clock, settings, self.senses, enqueue=self.queue.add, on_error=self._tell_error)
        self._gatherer = Gatherer(cluster, clock, self.senses)
        self._nodes: dict[str, NodeFacts] = {}
        self._resync_at = clock.monotonic()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Subscribe, look at every run once, and go on in threads until `stop`."""
        self._cluster.subscribe(self.on_event)
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{n}", daemon=True) for n in range(self._settings.workers)
        ]
        self._threads.append(threading.Thread(target=self._poll, name="poller", daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the passes under way and end the threads; runs go on without us."""
        self._stopping.set()
        self.queue.close()
        self.poller.interrupt()
        for thread in self._threads:
            thread.join()

    def trouble(self, stuck_seconds: float) -> str | None:
        """Why this process should be started again; None if it works."""
        dead = [thread.name for thread in self._threads if not thread.is_alive()]
        if dead:
            return f"threads have died: {', '.join(dead)}"
        due = self.queue.next_due_at()
        if due is not None and self._clock.monotonic() - due > stuck_seconds:
            return f"a pass has been due for more than {stuck_seconds:.0f} s"
        return None

    def on_event(self, event: WatchEvent) -> None:
        """Enqueue whom a change concerns; may be called from any thread."""
        metadata = event.object["metadata"]
        if event.kind == "TrainingRun":
            slack = SLACK_SECONDS if is_echo(event) else 0.0
            self.queue.add(Key(metadata["namespace"], metadata["name"]), slack_seconds=slack)
        elif event.kind == "Node":
            self._on_node(event)
        else:
            run = (metadata.get("labels") or {}).get(Label.RUN)
            if run is not None:
                is_coming = is_on_its_way(event)
                self.queue.add(
                    Key(metadata["namespace"], run),
                    delay_seconds=GATHERING_SECONDS if is_coming else 0.0,
                    slack_seconds=SLACK_SECONDS if is_coming or event.type == "ADDED" else 0.0,
                )

    def process_due(self) -> bool:
        """Run one pass that is due; False if none is. For callers without threads."""
        key = self.queue.pop_due()
        if key is None:
            return False
        self._process(key)
        return True

    def resync_if_due(self) -> None:
        """Enqueue the runs of which nobody has told us: each other one waits for its next pass."""
        if self._clock.monotonic() < self._resync_at:
            return
        try:
            runs = self._cluster.list_runs()
        except ClusterError:
            return  # the next call tries again
        self._resync_at = self._clock.monotonic() + self._settings.resync_seconds
        for run in runs:
            if not self.queue.has(_key_of(run)):
                self.queue.add(_key_of(run), slack_seconds=SLACK_SECONDS)

    def next_due_at(self) -> float:
        """Monotonic time of the next thing to do."""
        times = [self._resync_at, self.queue.next_due_at(), self.poller.next_due_at()]
        return min(t for t in times if t is not None)

    def _process(self, key: Key) -> None:
        """One pass with its consequences for queue and poller."""
        started, outcome = self._clock.monotonic(), "crashed"
        try:
            decision = reconcile(
                self._cluster,
                self._gatherer,
                self.senses,
                self._journal,
                key,
                self._settings.agent_image,
                self._observe_action,
            )
        except (Conflict, NotFound):
            outcome = "conflict"
            self.queue.retry(key)
        except Unavailable:
            outcome = "unavailable"
            self.senses.note_api(self._clock.now(), is_reachable=False)
            self.queue.retry(key)
        except ClusterError as error:
            outcome = "refused"
            self._tell_error(key, error)
            self.queue.retry(key)
        else:
            outcome = "ok"
            self.senses.note_api(self._clock.now(), is_reachable=True)
            self.queue.forget_failures(key)
            self.poller.watch(key, decision.watch if decision is not None else None)
            if decision is not None:
                delay = self._seconds_until(decision.next_wake)
                self.queue.add(key, delay_seconds=delay, slack_seconds=SLACK_SECONDS)
        finally:
            self.queue.done(key)
            self._observe_pass(outcome, self._clock.monotonic() - started)

    def _seconds_until(self, next_wake: datetime | None) -> float:
        """Of the next pass; watch events may be lost, so that each run gets one from time to time."""
        longest = self._settings.resync_seconds
        return longest if next_wake is None else min(longest, (next_wake - self._clock.now()).total_seconds())

    def _on_node(self, event: WatchEvent) -> None:
        """A heartbeat is no news; a change of what the rules look at is, for the runs that use the node."""
        name = event.object["metadata"]["name"]
        facts = node_facts(event.object)
        if event.type == "DELETED":
            facts = NodeFacts(name, exists=False, ready=None)
        if self._nodes.get(name) == facts:
            return
        self._nodes[name] = facts
        if not facts.exists:
            del self._nodes[name]
        try:
            runs = self._cluster.list_runs()
        except ClusterError:
            return  # the resync will see it
        for run in runs:
            attempts = (run.get("status") or {}).get("attempts") or []
            if attempts and name in attempts[-1].get("nodes", ()):
                self.queue.add(_key_of(run))

    def _tell_error(self, key: Key, error: Exception) -> None:
        self._journal(
            {
                "time": to_text(self._clock.now()),
                "namespace": key.namespace,
                "run": key.name,
                "attempt": None,
                "type": "error",
                "rule": "",
                "reason": type(error).__name__,
                "message": "".join(traceback.format_exception_only(error)).strip(),
                "where": "".join(traceback.format_tb(error.__traceback__)[-3:]),
            }
        )

    def _work(self) -> None:
        while (key := self.queue.get()) is not None:
            try:
                self._process(key)
            except Exception as error:  # a bug that one run brings out must not end the thread that serves the others
                self._tell_error(key, error)
                self.queue.retry(key)

    def _poll(self) -> None:
        with ThreadPoolExecutor(self._settings.poll_parallel, thread_name_prefix="ask") as pool:
            while not self._stopping.is_set():
                self.resync_if_due()
                self.poller.run_due(pool)
                wait = min(LONGEST_WAIT_SECONDS, max(0.0, self._resync_at - self._clock.monotonic()))
                self.poller.wait(max(wait, self._settings.retry_first_seconds))


def is_echo(event: WatchEvent) -> bool:
    """Whether a run shows what we have seen of it already: most such changes are our own writes of its status."""
    metadata = event.object["metadata"]
    seen = (event.object.get("status") or {}).get("observedGeneration")
    return event.type == "MODIFIED" and "deletionTimestamp" not in metadata and seen == metadata.get("generation", 1)


def is_on_its_way(event: WatchEvent) -> bool:
    """Whether it tells of a pod that comes or runs, and of nothing that has ended or is about to."""
    if event.kind != "Pod" or event.type == "DELETED" or "deletionTimestamp" in event.object["metadata"]:
        return False
    status = event.object.get("status") or {}
    has_ended = any("terminated" in (c.get("state") or {}) for c in status.get("containerStatuses") or ())
    return status.get("phase", "Pending") in ("Pending", "Running") and not has_ended


def _key_of(run: Object) -> Key:
    return Key(run["metadata"]["namespace"], run["metadata"]["name"])
