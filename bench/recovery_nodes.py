"""Recovery on real nodes: from a fault to the next optimizer step, phase by phase.

Real kubelets, containerd, scheduler and training-operator in namespaces of this machine, images from the project's own
Dockerfiles, the operator by Helm inside the cluster (tests/nodes). A node is not Ready 6 s after its last heartbeat.
Every worker requests its node's one device, so a new attempt waits for the old pod's node or takes the free one.
Moments of the cluster come from watches, those of the workers from the timeline that each start writes beside the
checkpoints; both are this machine's clock. One run per fault and round, faults interleaved.

    python bench/recovery_nodes.py [--times N] [--only FAULT ...]       (root and Go; about 40 s for each fault)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from trainrun_api.contract import CheckpointLayout, Label  # noqa: E402 - the harness is not installed
from trainrun_operator.report.recovery import spans  # noqa: E402

from bench.watching import Watching  # noqa: E402
from tests.controlplane.api import JOBS  # noqa: E402
from tests.nodes import trainee  # noqa: E402
from tests.nodes.cluster import node_cluster, session  # noqa: E402
from tests.nodes.trainee import BETWEEN_CHECKPOINTS, LONG_STEPS, Traces  # noqa: E402
from tests.nodes.user import NodeUser, remove_run  # noqa: E402

OUT = ROOT / "build" / "bench" / "recovery_nodes.json"
PHASES = ("detect", "decide", "schedule", "containers", "imports", "rendezvous", "load", "first step")
"""fault -> verdict in status -> PyTorchJob -> all pods bound -> all containers run -> worker process up -> process
group -> checkpoint loaded -> step done."""
OF_WORKERS = {
    "imports": "process_started",
    "rendezvous": "rendezvous_done",
    "load": "loaded",
    "first step": "first_step_done",
}
MARK = "UnschedulablePendingReplacement"

Pods = list[dict[str, Any]]


def _killed(user: NodeUser, pods: Pods) -> AbstractContextManager[None]:
    user.kill_worker(pods[1])
    return nullcontext()


@dataclass(frozen=True)
class Fault:
    """What is done to a run, and what the design wants of it."""

    name: str
    strike: Callable[[NodeUser, Pods], AbstractContextManager[None]]
    target_seconds: float | None
    attempt: int = 1
    """The attempt that does the next step."""
    spares: int = 0


FAULTS = (
    Fault("node vanishes", lambda user, pods: user.node_vanished(user.node_of(pods[1])), 15.0),
    Fault("node of worker 0 vanishes", lambda user, pods: user.node_vanished(user.node_of(pods[0])), 15.0),
    Fault(
        "node vanishes, spare waits",
        lambda user, pods: user.node_vanished(user.node_of(pods[1])),
        8.0,
        attempt=0,
        spares=1,
    ),
    Fault(
        "node of worker 0 vanishes, spare waits",
        lambda user, pods: user.node_vanished(user.node_of(pods[0])),
        None,
        spares=1,
    ),
    Fault("node is marked by HyperPod", lambda user, pods: user.node_marked(user.node_of(pods[1]), MARK), 12.0),
    Fault("worker process killed", _killed, 4.0, attempt=0),
    Fault("worker cut off", lambda user, pods: user.pod_partitioned(pods[1]), None),
)


class Seen(Watching):
    """When watches showed the verdict, and the next attempt's job and pods."""

    def __init__(self, user: NodeUser, name: str) -> None:
        self._name = name
        self._bound: set[str] = set()
        self._running: set[str] = set()
        space = f"/namespaces/{user.namespace}"
        of_run = f"labelSelector={Label.RUN}={name}"
        paths = {
            f"{user.runs_path}?fieldSelector=metadata.name={name}": self._run,
            f"{JOBS}{space}/pytorchjobs?{of_run}": self._job,
            f"/api/v1{space}/pods?{of_run},{Label.ATTEMPT}=1": self._pod,
        }
        super().__init__(user.api, time.time, paths)

    def _run(self, run: Any) -> None:
        if ((run.get("status") or {}).get("attempts") or [{}])[0].get("endedAt"):
            self.mark("detect")

    def _job(self, job: Any) -> None:
        if job["metadata"]["name"] == f"{self._name}-a1":
            self.mark("decide")

    def _pod(self, pod: Any) -> None:
        uid = pod["metadata"]["uid"]
        if pod["spec"].get("nodeName"):
            self._bound.add(uid)
        if any("running" in one["state"] for one in pod["status"].get("containerStatuses") or []):
            self._running.add(uid)
        for phase, pods in (("schedule", self._bound), ("containers", self._running)):
            if len(pods) == 2:
                self.mark(phase)


def measure(user: NodeUser, fault: Fault, name: str) -> dict[str, float]:
    """Seconds by phase of one recovery."""
    spec = {"config": {"total_steps": LONG_STEPS}, "workers": {"spares": fault.spares}}
    traces = user.create_run(name, {"spec": spec})
    try:
        user.wait_step(name, BETWEEN_CHECKPOINTS)
        user.wait_reason(name, "Running")
        pods, before = user.pods(name), len(traces.claims())
        for spare in pods[2:]:
            user.wait_warm(spare)
        with Seen(user, name).watching() as seen:
            since = time.time()
            with fault.strike(user, pods):
                user.wait(lambda: _moments(user, name, before, fault.attempt), name, "the next step")
        return spans(since, {**seen.at, **_moments(user, name, before, fault.attempt)}, PHASES)
    finally:
        remove_run(user, name)


def _moments(user: NodeUser, name: str, before: int, attempt: int) -> dict[str, float]:
    """Of the worker group that began after the fault, once it has done a step."""
    for claim in Traces(user.cluster.shared, name).claims()[before:]:
        path = user.cluster.shared / name / CheckpointLayout.timeline(claim["k"])
        instants = json.loads(path.read_text()) if path.exists() else {}
        if claim["attempt"] == attempt and "first_step_done" in instants:
            return {phase: instants[instant] for phase, instant in OF_WORKERS.items()}
    return {}


def summary(fault: Fault, samples: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Median and worst of the totals, medians of the phases."""
    totals = [sum(sample.values()) for sample in samples]
    return {
        "fault": fault.name,
        "samples": len(samples),
        "target_seconds": fault.target_seconds,
        "median_seconds": round(statistics.median(totals), 2),
        "worst_seconds": round(max(totals), 2),
        "phases": {
            phase: round(statistics.median(sample.get(phase, 0.0) for sample in samples), 2)
            for phase in PHASES
            if any(phase in sample for sample in samples)
        },
        "all": [{phase: round(value, 2) for phase, value in sample.items()} for sample in samples],
    }


def show(figures: dict[str, Any]) -> None:
    """One line for people."""
    target, median = figures["target_seconds"], figures["median_seconds"]
    verdict = "no target" if target is None else f"target {target:.0f} s {'met' if median <= target else 'MISSED'}"
    phases = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in figures["phases"].items())
    worst, samples = figures["worst_seconds"], figures["samples"]
    print(
        f"{figures['fault']}: {median:.1f} s median of {samples} (worst {worst:.1f}); {verdict}; {phases}", flush=True
    )


def main() -> None:
    """Measure every fault and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10, help="recoveries of each fault (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=[fault.name for fault in FAULTS], help="these faults")
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if not options.only or fault.name in options.only]
    samples: dict[str, list[dict[str, float]]] = {fault.name: [] for fault in faults}
    with session() as images, node_cluster(images) as cluster:
        trainee.write_text(cluster.shared)
        user = NodeUser(cluster)
        for number in range(options.times):
            for kind, fault in enumerate(faults):
                sample = measure(user, fault, f"bench-{kind}-{number}")
                samples[fault.name].append(sample)
                print(f"  {number + 1}. {fault.name}: {sum(sample.values()):.1f} s", flush=True)
    results = [summary(fault, samples[fault.name]) for fault in faults]
    for figures in results:
        show(figures)
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"machine": machine, "at": int(time.time()), "results": results}, indent=2) + "\n")
    print(f"written: {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
