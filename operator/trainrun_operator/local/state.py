"""What is on disk about a run, read from outside its operator process: by the supervisor and by the CLI."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainrun_api.contract import CheckpointLayout
from trainrun_api.store_files import newest_committed

from trainrun_operator.agent_client import ask
from trainrun_operator.cluster import Object
from trainrun_operator.local.disk import ObjectFiles, read_json
from trainrun_operator.local.layout import LOCK, RunDir
from trainrun_operator.local.pod_process import LOOPBACK, POD_FOLDER
from trainrun_operator.local.process import ProcessId, Tree
from trainrun_operator.stores import stores_of

ASK_SECONDS = 0.3
"""An agent of this machine answers in milliseconds; the display does not wait for a dead one."""


@dataclass(frozen=True)
class LivePod:
    """A pod process that runs now."""

    name: str
    node: str
    index: int
    port: int
    tree: Tree


def stored_run(run_dir: RunDir) -> Object | None:
    """The TrainingRun with its status; None before the first start."""
    runs = ObjectFiles(run_dir.objects).read("TrainingRun")
    return runs[0] if runs else None


def has_workload(run_dir: RunDir) -> bool:
    """Whether a job or a pod of the run is left."""
    files = ObjectFiles(run_dir.objects)
    return bool(files.read("PyTorchJob") or files.read("Pod") or live_pods(run_dir))


def live_pods(run_dir: RunDir) -> list[LivePod]:
    """Pod processes that run now, by pod index."""
    found = []
    for path in run_dir.pods.glob("*/record.json"):
        record = read_json(path)
        if record is None:
            continue
        process = ProcessId.from_json(record["process"])
        if process.is_alive():
            tree = Tree(process, POD_FOLDER, str(path.parent))
            found.append(LivePod(record["pod"], record["node"], record["index"], record["port"], tree))
    return sorted(found, key=lambda pod: (pod.index, pod.name))


def kill_pods(run_dir: RunDir) -> None:
    """End every pod process at once."""
    for pod in live_pods(run_dir):
        pod.tree.kill()


def end_pods(run_dir: RunDir, seconds: float) -> None:
    """Let every pod save and end by itself: agents need no operator for that. What is left then is killed."""
    for pod in live_pods(run_dir):
        pod.tree.leader.signal(signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while live_pods(run_dir) and time.monotonic() < deadline:
        time.sleep(0.1)
    kill_pods(run_dir)


def is_supervised(run_dir: RunDir) -> bool:
    """Whether the process that took the workdir last still lives."""
    try:
        holder = int((run_dir.root.parent / LOCK).read_text())
    except (FileNotFoundError, ValueError):
        return False
    return ProcessId.of(holder) is not None


def ask_progress(run_dir: RunDir) -> Mapping[str, Any]:
    """The whole run's progress from worker 0's agent; empty when it does not answer."""
    pods = live_pods(run_dir)
    answer = ask(LOOPBACK, pods[0].port, timeout_seconds=ASK_SECONDS).record if pods else None
    return answer or {}


def durable_step(run_dir: RunDir) -> int | None:
    """Step of the checkpoint that the next worker group would start from."""
    newest: Path | None = newest_committed(stores_of(run_dir.checkpoints)[-1].path)
    parsed = CheckpointLayout.parse_step_dir(newest.name) if newest is not None else None
    return parsed[0] if parsed is not None else None
