"""What a pass over a run that trains costs the operator, at full size and without a cluster: CPU, API calls, memory.

The shipped operator and its cache, filled as the watches would fill it; the API server is a dictionary. CPU time is
counted, so that a busy machine does not matter; HTTP, TLS and kopf are not in it (`operator_scale.py` has them).

    python bench/operator_passes.py [--runs N]
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from trainrun_operator.cluster import Key, ProgressAnswer  # noqa: E402
from trainrun_operator.core.pytorchjob import render  # noqa: E402
from trainrun_operator.kube.kube_cluster import KubeCluster, Place  # noqa: E402
from trainrun_operator.objects import timestamp  # noqa: E402
from trainrun_operator.operator import Operator  # noqa: E402
from trainrun_operator.settings import Settings  # noqa: E402
from trainrun_operator.testing import FakeClock  # noqa: E402

from bench.scale_jobs import pods_of  # noqa: E402
from tests.api.manifests import good, merged  # noqa: E402

WORKERS, NODES_PER_RUN = 8, 2
PASSED = 100
"""Runs that get a pass; the others are there to be in the way."""


class Server:
    """As much of a KubeClient as such a pass needs."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, Key], Any] = {}
        self.calls = 0
        self._version = 10**6

    def get(self, kind: str, key: Key) -> Any:
        """A copy, as over the wire."""
        self.calls += 1
        return json.loads(json.dumps(self.objects[kind, key]))

    def replace(self, kind: str, obj: Any, *, subresource: str = "") -> Any:
        """Status only."""
        self.calls += 1
        self._version += 1
        whole = self.objects[kind, Key(obj["metadata"]["namespace"], obj["metadata"]["name"])]
        whole["status"], whole["metadata"]["resourceVersion"] = obj["status"], str(self._version)
        return json.loads(json.dumps(whole))

    def create(self, kind: str, namespace: str, obj: Any) -> Any:
        """Events."""
        self.calls += 1
        return obj


def fill(cluster: KubeCluster, server: Server, runs: int, now: str) -> list[Key]:
    """All runs train, on nodes that are well."""
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now}
    for number in range(runs * NODES_PER_RUN):
        node = {"metadata": _metadata(f"node-{number:04}", now, ""), "status": {"conditions": [ready]}}
        cluster.cache.put("Node", node)
    keys = [Key("scale", f"run-{number:04}") for number in range(runs)]
    for number, key in enumerate(keys):
        names = [f"node-{(number * WORKERS + n) % (runs * NODES_PER_RUN):04}" for n in range(WORKERS)]
        path = {"checkpoint": {"path": f"/checkpoints/{key.name}"}}
        shape = {"workers": {"replicas": WORKERS}, "config": {"total_steps": 10**6, "global_batch_rows": 2 * WORKERS}}
        run = merged(good(), {"metadata": _metadata(key.name, now), "spec": {**shape, **path}})
        attempt = {
            "number": 0, "job": f"{key.name}-a0", "jobUID": f"uid-{key.name}-a0", "startedAt": now, "nodes": names,
            "scheduledAt": now, "firstStepAt": now, "replicas": WORKERS, "generation": 1,
        }  # fmt: skip
        run["status"] = {"phase": "Running", "attempt": 0, "attempts": [attempt]}
        job = render(run, 0, (), WORKERS)
        job["metadata"] |= _metadata(f"{key.name}-a0", now)
        for pod in pods_of(job, names):
            pod["metadata"] |= _metadata(pod["metadata"]["name"], now)
            pod["status"] = {"phase": "Running", "startTime": now, "podIP": "127.0.0.1", "conditions": [ready]}
            cluster.cache.put("Pod", pod)
        for kind, obj in (("TrainingRun", run), ("PyTorchJob", job)):
            server.objects[kind, Key("scale", obj["metadata"]["name"])] = obj
            cluster.cache.put("TrainingRun" if kind == "TrainingRun" else "PyTorchJob", copy.deepcopy(obj))
    return keys


def _metadata(name: str, now: str, namespace: str = "scale") -> dict[str, Any]:
    return {
        "name": name, "namespace": namespace, "uid": f"uid-{name}", "resourceVersion": "1", "generation": 1,
        "creationTimestamp": now,
    }  # fmt: skip


def passes(operator: Operator, server: Server, keys: list[Key]) -> tuple[float, float]:
    """Milliseconds of CPU and API calls of a pass."""
    for key in keys:
        operator.queue.add(key)
    calls, began = server.calls, time.process_time()
    while operator.process_due():
        pass
    return (time.process_time() - began) / len(keys) * 1000, (server.calls - calls) / len(keys)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="with two nodes and eight pods each (%(default)s)")
    runs = parser.parse_args().runs
    clock, server = FakeClock(), Server()
    cluster = KubeCluster(server, clock, Place("system"))  # type: ignore[arg-type]
    keys = fill(cluster, server, runs, timestamp(clock.now()))
    operator = Operator(cluster, clock, Settings(), lambda line: None)
    for name in ("the first, live", "with a write of progress", "with nothing to write"):
        if name != "with nothing to write":
            clock.advance(61)
        for key in keys[:PASSED]:
            step = int(clock.monotonic())
            record = {"schema": 1, "run": key.name, "attempt": 0, "phase": "training", "step": step,
                      "step_age_seconds": 1.0,
                      "heard": {str(n): 0.5 for n in range(1, WORKERS)}}  # fmt: skip
            operator.senses.note_answer(key, 0, 0, ProgressAnswer(record), clock.now())
        milliseconds, calls = passes(operator, server, keys[:PASSED])
        for key in keys[:PASSED]:
            cluster.cache.put("TrainingRun", server.objects["TrainingRun", key])  # the watch's echo
        while operator.queue.pop_due() is not None:
            pass
        print(f"a pass {name}: {milliseconds:.2f} ms of CPU, {calls:.1f} API calls", flush=True)
    print(f"{runs} runs in memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most")


if __name__ == "__main__":
    main()
