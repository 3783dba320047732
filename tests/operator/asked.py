"""A run whose agents are asked: what the tests of the poller share."""

from __future__ import annotations

import threading
from dataclasses import asdict

from trainrun_api.contract import Progress
from trainrun_operator.cluster import Key, ProgressAnswer
from trainrun_operator.core.decision import Watch
from trainrun_operator.poller import Poller
from trainrun_operator.senses import Senses
from trainrun_operator.settings import Settings
from trainrun_operator.testing import FakeClock, FakeCluster

KEY = Key("default", "a")
WATCH = Watch(
    attempt=0,
    is_suspect=False,
    first_step_missing=False,
    step_age_limit_seconds=20.0,
    phase="training",
    inplace_restarts=0,
    heard_indices=frozenset({0}),
    silent_indices=frozenset(),
    ask_all=False,
)


class Stage:
    """A poller, three running pods of attempt 0 and one of attempt 1, and agents that answer as told."""

    def __init__(self) -> None:
        self.clock, self.news, self.asked = FakeClock(), [], []
        self.cluster = FakeCluster(self.clock)
        self.answers: dict[int, ProgressAnswer] = {}
        for attempt, index in ((0, 2), (0, 0), (0, 1), (1, 0)):
            self._add_pod(attempt, index)
        self.cluster.answer = self._answer
        self.senses = Senses(15.0, 60.0)
        self.errors: list[tuple[Key, Exception]] = []
        self.poller = Poller(
            self.cluster,
            self.clock,
            Settings(),
            self.senses,
            enqueue=self.news.append,
            on_error=lambda key, error: self.errors.append((key, error)),
        )

    def _add_pod(self, attempt: int, index: int) -> None:
        labels = {
            "trainrun.dev/run": "a",
            "trainrun.dev/attempt": str(attempt),
            "training.kubeflow.org/replica-index": str(index),
        }
        pod = self.cluster.store.create(
            {"kind": "Pod", "metadata": {"name": f"a-a{attempt}-{index}", "labels": labels}}
        )
        self.cluster.store.replace_status({**pod, "status": {"phase": "Running"}})

    def _answer(self, pod) -> ProgressAnswer:
        labels = pod["metadata"]["labels"]
        self.asked.append(pod["metadata"]["name"])
        index = int(labels["training.kubeflow.org/replica-index"])
        return self.answers.get(index, record(run=labels["trainrun.dev/run"]))

    def hold_answers(self) -> tuple[threading.Event, threading.Event]:
        """Agents answer when the first event is set; the second one is, when one is asked."""
        gate, reached = threading.Event(), threading.Event()

        def slow(pod) -> ProgressAnswer:
            self.asked.append(pod["metadata"]["name"])
            reached.set()
            assert gate.wait(20)
            return record()

        self.cluster.answer = slow
        return gate, reached

    def poll(self, watch: Watch = WATCH) -> list[Key]:
        """One round; who is enqueued."""
        self.news.clear()
        self.poller.poll(KEY, watch)
        return list(self.news)


def record(**changes) -> ProgressAnswer:
    """A healthy answer."""
    healthy = Progress(run=KEY.name, attempt=0, phase="training", step=5, step_age_seconds=1.0)
    return ProgressAnswer(asdict(healthy) | changes)
