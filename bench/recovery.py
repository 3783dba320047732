"""Recovery: from a fault to the next optimizer step, phase by phase, on this machine.

Ours is `trainrun run` with faults: a worker killed in a pod of two, a worker killed in one of two pods, a node lost.
The peer is torchrun with --max-restarts around the very same worker function, data and checkpoints, hit by the same
kills in the same run of this program: once as it comes, then with the one setting that lets it recover at all. It
cannot recover from a lost node by itself.

    python bench/recovery.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from recovery_torchrun import OWN_STORE, torchrun_recoveries
from trainrun_operator.report.recovery import PHASES, recoveries

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "bench" / "recovery.json"
STEPS_BETWEEN_FAULTS = 6
RUN_LIMIT_SECONDS = 900


@dataclass(frozen=True)
class Case:
    """One kind of fault."""

    name: str
    pods: int
    workers_per_pod: int
    fault: str
    target_seconds: float
    """Design section 8, for a tiny model. The node's target is for a real cluster, which has a scheduler and images."""


CASES = (
    Case("worker-killed-within-a-pod", 1, 2, "kill-worker", 2.0),
    Case("worker-killed-between-pods", 2, 1, "kill-worker", 4.0),
    Case("node-lost", 2, 1, "lose-node", 15.0),
)


def config(steps: int) -> dict[str, Any]:
    """A TrainConfig of 0.2 M parameters on the example's text."""
    text = ROOT / "examples" / "01-local" / "text" / "domain"
    return {
        "model": {
            "architecture": {
                "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 4,
            }
        },
        "data": {"sources": {"domain": {"path": str(text)}}, "tokenizer": {"vocab_size": 1024}, "row_tokens": 64},
        "total_steps": steps,
        "global_batch_rows": 4,
        "micro_batch_rows": 2,
    }  # fmt: skip


def manifest(case: Case, steps: int) -> dict[str, Any]:
    """The TrainingRun of a case."""
    return {
        "apiVersion": "trainrun.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": case.name},
        "spec": {
            "image": "trainrun/trainer:0.1.0",
            "workers": {"replicas": case.pods, "devicesPerWorker": case.workers_per_pod, "accelerator": "cpu"},
            "config": config(steps),
            "checkpoint": {"path": f"/checkpoints/{case.name}", "interval": STEPS_BETWEEN_FAULTS // 2},
        },
    }


def fault_steps(times: int) -> list[int]:
    """Steps at which faults strike, each after at least one new checkpoint, or the restart budget would end the run."""
    return [STEPS_BETWEEN_FAULTS * (k + 1) - 1 for k in range(times)]


def our_recoveries(case: Case, times: int, folder: Path) -> list[dict[str, float]]:
    """Seconds by phase of each recovery of `trainrun run`."""
    steps = STEPS_BETWEEN_FAULTS * (times + 1)
    path = folder / f"{case.name}.yaml"
    path.write_text(yaml.safe_dump(manifest(case, steps)))
    nodes = case.pods + (times if case.fault == "lose-node" else 0)
    faults = [word for step in fault_steps(times) for word in ("--fault", f"{case.fault}@step={step}")]
    command = [str(Path(sys.executable).parent / "trainrun"), "run", str(path), "--nodes", str(nodes)]
    done = subprocess.run(
        [*command, *faults, "--workdir", str(folder)], capture_output=True, text=True, timeout=RUN_LIMIT_SECONDS
    )
    if done.returncode != 0:
        sys.exit(f"{case.name}: trainrun ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return [dict(r.seconds) for r in recoveries(folder / case.name)]


def summary(samples: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Medians of the phases and of the totals."""
    totals = [sum(s.values()) for s in samples]
    return {
        "samples": len(samples),
        "total_seconds": round(statistics.median(totals), 3) if totals else None,
        "worst_seconds": round(max(totals), 3) if totals else None,
        "phases": {
            phase: round(statistics.median([s[phase] for s in samples if phase in s]), 3)
            for phase in PHASES
            if any(phase in s for s in samples)
        },
    }


def compare(case: Case, times: int, folder: Path) -> dict[str, Any]:
    """Our figure, the peer's on the same machine right after it, and their ratio."""
    ours = summary(our_recoveries(case, times, folder))
    result: dict[str, Any] = {"case": case.name, "faults": times, "target_seconds": case.target_seconds, "ours": ours}
    if case.fault != "kill-worker":
        return result
    for name, settings, kills in (("torchrun", {}, 1), ("torchrun_own_store", OWN_STORE, times)):
        samples, hung = torchrun_recoveries(
            config(STEPS_BETWEEN_FAULTS * (times + 1)), case.pods, case.workers_per_pod, fault_steps(kills),
            STEPS_BETWEEN_FAULTS // 2, folder / name, settings,
        )  # fmt: skip
        result[name] = {**summary(samples), "not_recovered": hung}
    peer = result["torchrun_own_store"]["total_seconds"]
    if peer:
        result["ratio"] = round(peer / ours["total_seconds"], 2)
    return result


def show(result: dict[str, Any]) -> None:
    """One block for people."""
    ours = result["ours"]
    verdict = "met" if ours["total_seconds"] <= result["target_seconds"] else "MISSED"
    print(f"{result['case']}: {line(ours)}; target {result['target_seconds']} s: {verdict}")
    for name, words in (
        ("torchrun", "torchrun --max-restarts as it comes"),
        ("torchrun_own_store", "torchrun with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"),
    ):
        if name in result:
            print(f"  {words}: {line(result[name])}; not recovered: {result[name]['not_recovered']}")
    if "ratio" in result:
        print(f"  the better torchrun takes {result['ratio']} times as long as ours")


def line(figures: dict[str, Any]) -> str:
    """Median, worst and phases in one line."""
    if not figures["samples"]:
        return "never recovered"
    phases = ", ".join(f"{phase} {seconds}" for phase, seconds in figures["phases"].items())
    return f"{figures['total_seconds']} s median of {figures['samples']} (worst {figures['worst_seconds']}; {phases})"


def main() -> int:
    """Measure every case and write the JSON; 0 when each recovered as often as it was hit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two faults per case instead of five")
    times = 2 if parser.parse_args().quick else 5
    if not (ROOT / "examples" / "01-local" / "text" / "domain").is_dir():
        subprocess.run([sys.executable, str(ROOT / "examples" / "01-local" / "fetch_text.py")], check=True)
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
    results = []
    for case in CASES:
        with tempfile.TemporaryDirectory(prefix="trainrun-bench-") as folder:
            result = compare(case, min(times, 2) if case.fault == "lose-node" else times, Path(folder))
        results.append(result)
        show(result)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"machine": machine, "at": int(time.time()), "results": results}, indent=2) + "\n")
    print(f"written: {OUT.relative_to(ROOT)}")
    return 0 if all(r["ours"]["samples"] == r["faults"] for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
