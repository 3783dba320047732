"""`make demo-cluster`: a node vanishes under a run on real nodes; then the proof that not one bit of it is different.

Real kubelets and containerd in namespaces of this machine, the operator by Helm inside of the cluster. Everything is
removed at the end, also after Ctrl-C.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.chart.helm import FetchError
from tests.controlplane.binaries import BuildError
from tests.nodes import trainee
from tests.nodes.cluster import node_cluster, session
from tests.nodes.machine import Unavailable
from tests.nodes.trainee import INTERVAL, Traces
from tests.nodes.user import NodeUser, remove_run

LOOK_SECONDS = 0.1
VANISH_AT = INTERVAL + INTERVAL // 4
STEPS_PER_LINE = 10
INTERRUPTED = 130
"""Exit code, as a shell has it."""


class Story:
    """Tells what changes, with seconds since it began."""

    def __init__(self, user: NodeUser, name: str, traces: Traces) -> None:
        self._user, self._name, self.traces = user, name, traces
        self._began = time.monotonic()
        self._told: dict[str, str] = {}

    def tell(self, words: str) -> None:
        """One line."""
        print(f"{time.monotonic() - self._began:7.1f} s  {words}", flush=True)

    def follow(self, is_over: Callable[[], bool]) -> None:
        """Tell every change until it is over."""
        while not is_over():
            for topic, words in self._look():
                if words and self._told.get(topic) != words:
                    self._told[topic] = words
                    self.tell(words)
            time.sleep(LOOK_SECONDS)

    def _look(self) -> Iterator[tuple[str, str]]:
        status = self._user.run(self._name)["status"]
        for condition in status.get("conditions") or []:
            if condition["type"] == "Ready":
                yield "run", f"{self._name} {condition['reason']}: {condition['message']}"
        for pod in self._user.pods(self._name):
            pod_name, phase = pod["metadata"]["name"], pod["status"].get("phase")
            yield pod_name, f"  pod {pod_name} {phase} on {pod['spec'].get('nodeName', 'no node yet')}"
        for node in self._user.cluster.nodes.values():
            yield node.name, "" if node.is_ready(self._user.api) else f"  node {node.name} is not Ready"
        step = self.traces.step()
        yield "step", f"  step {step}" if step and step % STEPS_PER_LINE == 0 else ""


def main() -> int:
    """Tell it; 1 with one sentence where it cannot be told."""
    try:
        with session() as images:
            print("demo-cluster: starting a control plane and four nodes ...", flush=True)
            began = time.monotonic()
            with node_cluster(images) as cluster:
                print(f"demo-cluster: the cluster is up after {time.monotonic() - began:.0f} s", flush=True)
                trainee.write_text(cluster.shared)
                _tell(NodeUser(cluster))
    except (Unavailable, BuildError, FetchError) as problem:
        print(f"demo-cluster: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo-cluster: stopped, and everything is removed.")
        return INTERRUPTED
    print("demo-cluster: everything is stopped and removed.")
    return 0


def _tell(user: NodeUser) -> None:
    with _run(user, "undisturbed") as calm:
        calm.follow(lambda: _is_over(user, "undisturbed"))
    with _run(user, "disturbed") as stormy:
        stormy.follow(lambda: stormy.traces.step() >= VANISH_AT)
        lost = user.node_of(user.pods("disturbed")[1])
        stormy.tell(f"{lost.name} LOSES ITS POWER after step {stormy.traces.step()}")
        with user.node_vanished(lost):
            stormy.follow(lambda: _is_over(user, "disturbed"))
    ours, theirs = stormy.traces.losses(), calm.traces.losses()
    assert ours == theirs, "the losses differ"
    print(f"equal bit for bit: {len(ours)} losses")


@contextmanager
def _run(user: NodeUser, name: str) -> Iterator[Story]:
    """kubectl apply; nothing else trains when the next one begins."""
    print(f"--- {name}", flush=True)
    yield Story(user, name, user.create_run(name))
    print(", ".join(f"attempt {number}: {cause}" for number, cause in user.attempts(name)), flush=True)
    remove_run(user, name)


def _is_over(user: NodeUser, name: str) -> bool:
    phase = user.run(name)["status"].get("phase")
    assert phase != "Failed", user.story(name)
    return bool(phase == "Succeeded")


if __name__ == "__main__":
    sys.exit(main())
