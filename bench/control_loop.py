"""The control loop on a real control plane: from a fault to the next PyTorchJob, phase by phase, and the API calls.

The API server, scheduler and training-operator are real, nodes are kwok's and trainers are played
(tests/controlplane), so what is measured is detection, decision and the cluster's own work: no image, no import, no
training. Times come from watches, not from timestamps with whole seconds.

    python bench/control_loop.py [--repeat N]
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.watching import Watching  # noqa: E402 - the harness is not installed
from tests.controlplane.api import JOBS  # noqa: E402
from tests.controlplane.cluster import cluster  # noqa: E402
from tests.controlplane.control_plane import ControlPlane, install_definitions  # noqa: E402
from tests.controlplane.pods import said  # noqa: E402
from tests.controlplane.proxy import Call, Proxy  # noqa: E402
from tests.controlplane.stage import Stage, new_stage  # noqa: E402
from tests.controlplane.training_operator import tidy  # noqa: E402

OUT = ROOT / "build" / "bench" / "control_loop.json"
IDLE_SECONDS = 120.0
PHASES = ("verdict", "job", "pods", "first step known")
"""verdict: the old attempt's end is in status; job: the new PyTorchJob exists; pods: all of its pods run."""


def pod_fails(stage: Stage, pods: list[Any]) -> None:
    """Exit 30 with a termination message."""
    stage.trainers.end(pods[0], 30, said(pods[0], 30, "DeviceSuspect", step=7))


def node_goes(stage: Stage, pods: list[Any]) -> None:
    """The Node object is deleted."""
    node = pods[1]["spec"]["nodeName"]
    stage.nodes.lose(node)
    stage.nodes.remove(node)


def node_is_marked(stage: Stage, pods: list[Any]) -> None:
    """HyperPod's label; the run saves first."""
    stage.nodes.label(
        pods[0]["spec"]["nodeName"], "sagemaker.amazonaws.com/node-health-status", "UnschedulablePendingReplacement"
    )


def job_goes(stage: Stage, pods: list[Any]) -> None:
    """The PyTorchJob is deleted by somebody else."""
    stage.api.delete(f"{JOBS}/namespaces/{stage.namespace}/pytorchjobs/a-a0", propagationPolicy="Background")


FAULTS: dict[str, Callable[[Stage, list[Any]], None]] = {
    "pod fails": pod_fails,
    "node object goes": node_goes,
    "node is marked by HyperPod": node_is_marked,
    "job is deleted": job_goes,
}


class Seen(Watching):
    """When a watch first showed something."""

    def __init__(self, stage: Stage) -> None:
        self._running: set[str] = set()
        at = f"/namespaces/{stage.namespace}"
        paths = {stage.runs_path: self._run, f"{JOBS}{at}/pytorchjobs": self._job, f"/api/v1{at}/pods": self._pod}
        super().__init__(stage.api, time.monotonic, paths)

    def phases(self, since: float) -> list[float]:
        """Seconds of each phase."""
        marks = [since, *(self.at[name] for name in PHASES)]
        return [later - earlier for earlier, later in itertools.pairwise(marks)]

    def _run(self, run: Any) -> None:
        status = run.get("status") or {}
        attempts = status.get("attempts") or [{}]
        if attempts[0].get("endedAt"):
            self.mark("verdict")
        if len(attempts) > 1 and attempts[1].get("firstStepAt"):
            self.mark("first step known")

    def _job(self, job: Any) -> None:
        if job["metadata"]["name"] == "a-a1":
            self.mark("job")

    def _pod(self, pod: Any) -> None:
        if pod["metadata"]["name"].startswith("a-a1-") and pod["status"].get("phase") == "Running":
            self._running.add(pod["metadata"]["name"])
            if len(self._running) == 2:
                self.mark("pods")


def measure(stage: Stage, fault: str) -> list[float]:
    """One run, one fault."""
    with stage.operator(), Seen(stage).watching() as seen:
        stage.create_run("a")
        pods = stage.wait_running("a", 0)
        stage.wait_reason("a", "Running")
        since = time.monotonic()
        FAULTS[fault](stage, pods)
        stage.wait_running("a", 1)
        stage.wait_reason("a", "Running")
    return seen.phases(since)


def count_calls(stage: Stage) -> dict[str, dict[str, float]]:
    """Calls of an operator with one run: its start, its first attempt, rest, and its second attempt."""
    counts: dict[str, dict[str, float]] = {}
    with Proxy(stage.plane) as proxy, stage.operator(through=proxy):
        counts["start of the operator"] = taken(proxy)
        stage.create_run("a", {"spec": {"config": {"total_steps": 100_000}}})  # longer than all that follows
        pods = stage.wait_running("a", 0)
        stage.wait_reason("a", "Running")
        counts["a run's first attempt, until it trains"] = taken(proxy)
        time.sleep(IDLE_SECONDS)
        minutes = IDLE_SECONDS / 60
        counts["per minute of training"] = {call: n / minutes for call, n in taken(proxy).items()}
        pod_fails(stage, pods)
        stage.wait_running("a", 1)
        stage.wait_reason("a", "Running")
        counts["a failed pod and the next attempt, until it trains"] = taken(proxy)
    return counts


def taken(proxy: Proxy) -> dict[str, float]:
    """Calls since the last time, by verb and resource."""
    calls, proxy.calls = proxy.calls, []
    return dict(sorted(Counter(map(_shape, calls)).items()))


def _shape(call: Call) -> str:
    path = re.sub(r"/namespaces/[^/]+/", "/", call.path)
    parts = [part for part in path.split("/") if part not in ("", "api", "apis", "v1", "v1alpha1")]
    named = [part for part in parts if "." not in part]
    resource = "/".join([named[0], *named[2:]]) if named else "discovery"
    verb = "WATCH" if call.is_watch else call.method
    if verb == "GET" and len(named) == 1:
        verb = "LIST"
    return f"{verb} {resource}"


def main() -> None:
    """Print the tables and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="runs per fault (%(default)s)")
    repeat = parser.parse_args().repeat
    result: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "repeat": repeat, "faults": {}}
    with tempfile.TemporaryDirectory(prefix="trainrun-bench-") as folder, ControlPlane(Path(folder)) as plane:
        install_definitions(plane.api())
        with cluster(plane, "1.9.4") as whole:
            for fault in FAULTS:
                runs = []
                for _ in range(repeat):
                    with new_stage(whole) as stage:
                        runs.append(measure(stage, fault))
                result["faults"][fault] = _told(fault, runs)
            with new_stage(whole) as stage:
                result["calls"] = count_calls(stage)
    tidy()
    for moment, calls in result["calls"].items():
        print(f"{moment}: {', '.join(f'{n:g} x {call}' for call, n in calls.items())}")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2))


def _told(fault: str, runs: list[list[float]]) -> dict[str, Any]:
    medians = [statistics.median(run[n] for run in runs) for n in range(len(PHASES))]
    to_job = [run[0] + run[1] for run in runs]
    text = ", ".join(f"{name} {seconds:.2f}" for name, seconds in zip(PHASES, medians, strict=True))
    print(f"{fault} -> new PyTorchJob: median {statistics.median(to_job):.2f} s, worst {max(to_job):.2f} s ({text})")
    return {"phases": dict(zip(PHASES, medians, strict=True)), "to_job_seconds": to_job}


if __name__ == "__main__":
    main()
