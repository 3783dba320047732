"""The operator among 1,000 running runs, 2,000 nodes and 8,000 pods: memory, CPU, API calls, and 1% of nodes that fail.

Everything around the operator is real but the nodes (kwok) and the agents (`scale_agents.py`); see `scale_cluster.py`.
The operator is started anew when all runs train, so that its memory is that of a process which found them running.
Then it is left alone, then 1% of the nodes vanish at once (not Ready, agents silent), then the Node objects of another
1% are deleted. Latencies run from the API server's answer to the write that shows the fault until a watch shows the new
PyTorchJob. Needs root or user namespaces, and Go the first time.

    python bench/operator_scale.py [--runs N]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.scale_cluster import (  # noqa: E402 - the harness is not installed
    add_run,
    big_cluster,
    enter_own_network,
    in_parallel,
    operator_config,
)
from tests.controlplane.api import CORE, JOBS, RUNS, Api, ApiError  # noqa: E402
from tests.controlplane.control_plane import ControlPlane  # noqa: E402
from tests.controlplane.nodes import KUBELET, Nodes  # noqa: E402
from tests.controlplane.operator_process import OperatorProcess  # noqa: E402

OUT = ROOT / "build" / "bench"
NODES_PER_RUN = 2
FAILING_SHARE = 0.01
UNNOTICED_SECONDS = 10.0
"""From a node's end until it is called not Ready; a cluster's default are 40 to 50 s. Its peers miss it meanwhile."""
TELL_SECONDS = 10.0
LONGEST_SECONDS = 3600.0
TARGETS = {"idle MiB": 350, "load MiB": 450, "idle CPU %": 5, "p99 s": 5}


class Seen:
    """What watches show of runs and jobs, with the moment of it."""

    def __init__(self, plane: ControlPlane) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.running: dict[str, int] = {}
        """Attempt of each run that trains."""
        self.nodes: dict[str, list[str]] = {}
        self.jobs: dict[str, float] = {}
        """When each PyTorchJob was first seen."""
        self.run_changes = 0
        self._threads = [
            threading.Thread(target=self._follow, args=(plane.api(), path, see), daemon=True)
            for path, see in ((f"{RUNS}/trainingruns", self._run), (f"{JOBS}/pytorchjobs", self._job))
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the watches."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _follow(self, api: Api, path: str, see: Callable[[Any], None]) -> None:
        while not self._stop.is_set():
            with suppress(ApiError):
                version = ""
                for page in api.pages(path):
                    version = page["metadata"]["resourceVersion"]
                    for obj in page["items"]:
                        see(obj)
                for _, obj in api.watch(path, version, self._stop):
                    see(obj)

    def _run(self, run: Any) -> None:
        status, name = run.get("status") or {}, run["metadata"]["name"]
        ready: dict[str, Any] = next((c for c in status.get("conditions") or [] if c["type"] == "Ready"), {})
        with self._lock:
            self.run_changes += 1
            if ready.get("reason") == "Running":
                self.running[name] = status["attempt"]
                self.nodes[name] = status["attempts"][-1].get("nodes", [])
            else:
                self.running.pop(name, None)

    def _job(self, job: Any) -> None:
        with self._lock:
            self.jobs.setdefault(job["metadata"]["name"], time.monotonic())


class Watched:
    """The operator's process, seen from outside."""

    def __init__(self, operator: OperatorProcess) -> None:
        self._operator = operator
        self._proc = Path(f"/proc/{operator.process.pid}")

    def begin(self) -> None:
        """Forget the highest memory so far."""
        (self._proc / "clear_refs").write_text("5")

    def mebibytes(self, field: str = "VmRSS") -> float:
        """VmRSS now, or VmHWM since `begin`."""
        found = re.search(rf"{field}:\s+(\d+)", (self._proc / "status").read_text())
        assert found is not None
        return int(found.group(1)) / 1024

    def cpu_seconds(self) -> float:
        """Used since its start, by itself and the kernel for it."""
        fields = (self._proc / "stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def counted(self, metric: str) -> Counter[str]:
        """A counter's values by its labels."""
        found = re.findall(rf"^{metric}{{(.*?)}} (\S+)$", self._operator.get("/metrics"), re.MULTILINE)
        return Counter({" ".join(re.findall(r'"(.*?)"', labels)): int(float(value)) for labels, value in found})

    def calls(self) -> Counter[str]:
        """API calls so far by code, resource and verb; kopf's lists and watches are not among them."""
        return self.counted("trainrun_api_calls_total")


class Bench:
    """One size, from an empty cluster to its figures."""

    def __init__(self, plane: ControlPlane, options: argparse.Namespace) -> None:
        self._plane = plane
        self._options = options
        self._seen = Seen(plane)
        self._nodes = Nodes(plane.api())
        self.figures: dict[str, Any] = {
            "runs": options.runs, "nodes": options.runs * NODES_PER_RUN, "pods": options.runs * options.workers,
            "jobs are": "played" if options.played_jobs else "training-operator's",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        }  # fmt: skip

    def run(self) -> None:
        """All phases."""
        options, folder = self._options, self._plane.folder
        self._fill()
        starting = OperatorProcess(folder, operator_config(self._plane), None, "operator-first")
        with starting.process:
            starting.wait_ready()
            self._told("all runs to train", self._all_train)
            watched = Watched(starting)
            self.figures["ramp"] = {"peak MiB": watched.mebibytes("VmHWM"), "CPU s": watched.cpu_seconds()}
        self.figures |= {"pod bytes": self._size("pods"), "node bytes": self._size("nodes")}
        operator = OperatorProcess(folder, operator_config(self._plane), None, "operator")
        with operator.process:
            began = time.monotonic()
            operator.wait_ready()
            ready_after = time.monotonic() - began
            watched = Watched(operator)
            self._wait(options.settle_seconds, "the operator settles")
            self.figures["start"] = {
                "ready after s": ready_after, "peak MiB": watched.mebibytes("VmHWM"), "CPU s": watched.cpu_seconds(),
                "API calls": dict(watched.calls()),
            }  # fmt: skip
            self._idle(watched)
            victims = self._victims()
            self._fault("nodes vanish", watched, victims[0::2], self._vanish)
            self._fault("node objects are deleted", watched, victims[1::2], self._delete)
            self.figures["passes"] = dict(watched.counted("trainrun_reconcile_seconds_count"))
            self.figures["actions"] = dict(watched.counted("trainrun_actions_total"))
        self._seen.stop()

    def _fill(self) -> None:
        workers, names = self._options.workers, [f"run-{number:04}" for number in range(self._options.runs)]
        print(f"making {len(names)} runs of {workers} workers", flush=True)
        in_parallel(self._plane, lambda api, name: add_run(api, name, workers), names)

    def _all_train(self) -> bool:
        runs: int = self._options.runs
        return len(self._seen.running) >= runs

    def _size(self, kind: str) -> int:
        """Bytes of the first object as the API server sends it."""
        listed = self._plane.api().get(f"{CORE}/{kind}?limit=1")
        return len(json.dumps(listed["items"][0], separators=(",", ":")))

    def _idle(self, watched: Watched) -> None:
        seconds, runs = self._options.idle_seconds, self._options.runs
        watched.begin()
        cpu, calls, changes, began = watched.cpu_seconds(), watched.calls(), self._seen.run_changes, time.monotonic()
        samples = self._wait(seconds, "idle", watched)
        minutes = (time.monotonic() - began) / 60
        made = watched.calls() - calls
        written, changed = made["200 trainingruns update status"], self._seen.run_changes - changes
        self.figures["idle"] = {
            "seconds": seconds, "MiB": max(samples), "MiB at end": samples[-1], "peak MiB": watched.mebibytes("VmHWM"),
            "CPU %": (watched.cpu_seconds() - cpu) / minutes / 60 * 100,
            "API calls per run and minute": {call: n / minutes / runs for call, n in sorted(made.items())},
            "status writes": written, "changes of runs seen": changed,
        }  # fmt: skip
        print(json.dumps(self.figures["idle"], indent=2), flush=True)

    def _victims(self) -> list[str]:
        """Two lists of nodes in one, spread over the runs; all of them are in use."""
        used = sorted({node for nodes in self._seen.nodes.values() for node in nodes})
        count = 2 * max(1, math.ceil(FAILING_SHARE * self._options.runs * NODES_PER_RUN))
        return used[:: max(1, len(used) // count)][:count]

    def _vanish(self, nodes: list[str]) -> dict[str, float]:
        """Their kubelets and all on them go, and then the cluster notices; returns when it did."""
        in_parallel(self._plane, lambda api, n: Nodes(api).label(n, KUBELET, "gone"), nodes)
        time.sleep(UNNOTICED_SECONDS)

        def tell(api: Api, name: str) -> float:
            Nodes(api).set_ready(name, "Unknown")
            return time.monotonic()

        return dict(zip(nodes, in_parallel(self._plane, tell, nodes), strict=True))

    def _delete(self, nodes: list[str]) -> dict[str, float]:
        """Their Node objects go, and all on them."""
        in_parallel(self._plane, lambda api, n: Nodes(api).label(n, KUBELET, "gone"), nodes)

        def remove(api: Api, name: str) -> float:
            Nodes(api).remove(name)
            return time.monotonic()

        return dict(zip(nodes, in_parallel(self._plane, remove, nodes), strict=True))

    def _fault(
        self, name: str, watched: Watched, nodes: list[str], strike: Callable[[list[str]], dict[str, float]]
    ) -> None:
        """Break the nodes; figures of all runs that used them."""
        hit = {run: set(used) & set(nodes) for run, used in self._seen.nodes.items() if set(used) & set(nodes)}
        jobs = {run: f"{run}-a{self._seen.running[run] + 1}" for run in hit}
        watched.begin()
        cpu, calls = watched.cpu_seconds(), watched.calls()
        struck = strike(nodes)
        self._told(f"{len(hit)} runs to go on after: {name}", lambda: self._go_on(jobs))
        samples = sorted(self._seen.jobs[job] - min(struck[n] for n in hit[run]) for run, job in jobs.items())
        self._wait(self._options.settle_seconds, "the operator settles")
        made = watched.calls() - calls
        self.figures[name] = {
            "nodes": len(nodes), "runs hit": len(hit), "p50 s": _quantile(samples, 0.5),
            "p99 s": _quantile(samples, 0.99), "worst s": samples[-1], "peak MiB": watched.mebibytes("VmHWM"),
            "CPU s": watched.cpu_seconds() - cpu,
            "API calls per run hit": {call: n / len(hit) for call, n in sorted(made.items())},
        }  # fmt: skip
        print(json.dumps(self.figures[name], indent=2), flush=True)

    def _go_on(self, jobs: dict[str, str]) -> bool:
        running = self._seen.running
        return all(job in self._seen.jobs and run in running for run, job in jobs.items()) and self._all_train()

    def _told(self, what: str, is_so: Callable[[], bool]) -> None:
        """Wait, and say every 10 s how far it is."""
        began = said = time.monotonic()
        while not is_so():
            now = time.monotonic()
            if now - began > LONGEST_SECONDS:
                raise SystemExit(f"waited an hour for {what}; {self._state()}")
            if now - said > TELL_SECONDS:
                said = now
                print(f"  {now - began:5.0f} s, waiting for {what}: {self._state()}", flush=True)
            time.sleep(0.2)
        print(f"  {time.monotonic() - began:5.0f} s: {what}, done", flush=True)

    def _state(self) -> str:
        return f"{len(self._seen.jobs)} jobs seen, {len(self._seen.running)} runs train"

    def _wait(self, seconds: float, what: str, watched: Watched | None = None) -> list[float]:
        """Let time pass; memory once a second."""
        print(f"  {what} for {seconds:.0f} s", flush=True)
        samples, until = [], time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(1.0)
            samples.append(watched.mebibytes() if watched is not None else 0.0)
        return samples


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def table(figures: dict[str, Any]) -> str:
    """The figures that have a target."""
    vanish, delete = figures["nodes vanish"], figures["node objects are deleted"]
    rows = [
        ("memory at rest, highest (MiB)", figures["idle"]["MiB"], TARGETS["idle MiB"]),
        ("memory while nodes fail, peak (MiB)", max(vanish["peak MiB"], delete["peak MiB"]), TARGETS["load MiB"]),
        ("memory at its start, peak (MiB)", figures["start"]["peak MiB"], None),
        ("CPU at rest (% of a core)", figures["idle"]["CPU %"], TARGETS["idle CPU %"]),
        ("nodes vanish -> new PyTorchJob, p50 (s)", vanish["p50 s"], None),
        ("nodes vanish -> new PyTorchJob, p99 (s)", vanish["p99 s"], TARGETS["p99 s"]),
        ("Node objects go -> new PyTorchJob, p50 (s)", delete["p50 s"], None),
        ("Node objects go -> new PyTorchJob, p99 (s)", delete["p99 s"], TARGETS["p99 s"]),
        ("API calls per run and minute at rest", sum(figures["idle"]["API calls per run and minute"].values()), None),
    ]
    size = f"{figures['runs']} runs, {figures['nodes']} nodes, {figures['pods']} pods"
    lines = [f"{size}:", f"{'':46}{'ours':>10}{'target':>10}"]
    lines += [f"{name:46}{value:10.2f}{'' if target is None else target:>10}" for name, value, target in rows]
    return "\n".join(lines)


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="with two nodes each (%(default)s)")
    parser.add_argument("--workers", type=int, default=8, help="pods of each run (%(default)s)")
    parser.add_argument("--settle-seconds", type=float, default=60.0, help="before each phase (%(default)s)")
    parser.add_argument(
        "--idle-seconds",
        type=float,
        default=400.0,
        help="in 400 s each of 1,000 runs renews its progress (%(default)s)",
    )
    parser.add_argument(
        "--played-jobs",
        action="store_true",
        help="pods by scale_jobs.py instead of training-operator and scheduler; needed for thousands on two cores",
    )
    options = parser.parse_args()
    enter_own_network()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the folder and all processes go then too
    began = time.monotonic()
    nodes, is_played = options.runs * NODES_PER_RUN, options.played_jobs
    print(f"starting a control plane with {nodes} nodes", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="trainrun-scale-") as folder,
        big_cluster(Path(folder), nodes, is_played=is_played) as plane,
    ):
        bench = Bench(plane, options)
        bench.run()
    bench.figures |= {"bench seconds": time.monotonic() - began, "load average": os.getloadavg()}
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"operator_scale_{options.runs}.json").write_text(json.dumps(bench.figures, indent=2))
    print(table(bench.figures))


if __name__ == "__main__":
    main()
