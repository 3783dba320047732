"""The peer of bench/recovery.py: plain torchrun around our worker function, and a killer beside it.

Started as a program (by torchrun) it is the worker. Everything but the supervision is equal to ours: imports, data,
claims, checkpoints, and the fault protocol that holds a worker until it is killed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainrun_api.contract import Env

START_LIMIT_SECONDS = 300.0
RECOVERY_LIMIT_SECONDS = 90.0
"""A restart that takes longer counts as not recovered; torch's own time-outs in a hung restart are 60 s."""
OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""The setting without which a restarted group may read the dead group's addresses; off by default."""
MOMENTS = (
    ("start", "process_started"),
    ("rendezvous", "rendezvous_done"),
    ("load", "loaded"),
    ("first step", "first_step_done"),
)


def torchrun_recoveries(
    config: dict[str, Any], pods: int, workers: int, steps: Sequence[int], interval: int, place: Path,
    settings: Mapping[str, str],
) -> tuple[list[dict[str, float]], int]:  # fmt: skip
    """Seconds by phase of each recovery, and how many kills were not recovered from; `settings` is environment."""
    faults, store = place / "faults", place / "checkpoints"
    for made in (faults, store):
        made.mkdir(parents=True)
    for step in steps:
        fault = {"id": f"kill-{step}", "kind": "kill-worker", "step": step, "rank": -1}
        (faults / f"kill-{step}.json").write_text(json.dumps(fault))
    port = _free_port()
    launchers = [
        _start(config, pods, workers, len(steps), interval, index, port, place, faults, store, settings)
        for index in range(pods)
    ]
    samples: list[dict[str, float]] = []
    try:
        for number, step in enumerate(steps):
            limit = START_LIMIT_SECONDS if number == 0 else RECOVERY_LIMIT_SECONDS
            killed_at = _kill_when_held(faults, step, launchers, limit)
            sample = _recovered(store, killed_at, launchers) if killed_at is not None else None
            if sample is None:
                break
            samples.append(sample)
    finally:
        for launcher in launchers:
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGTERM)  # torchrun ends its workers, which have groups of their own
        for launcher in launchers:
            launcher.wait(60)
    return samples, len(steps) - len(samples)


def _start(
    config: dict[str, Any], pods: int, workers: int, restarts: int, interval: int, index: int, port: int,
    place: Path, faults: Path, store: Path, settings: Mapping[str, str],
) -> subprocess.Popen[bytes]:  # fmt: skip
    progress = place / f"pod{index}"
    progress.mkdir()
    ours = {
        Env.RUN: "peer", Env.RUN_UID: "peer", Env.ATTEMPT: "0", Env.ACCELERATOR: "cpu", Env.RESUME: "{}",
        Env.CONFIG: json.dumps(config), Env.CHECKPOINT: json.dumps({"interval": interval, "keepLast": 3}),
        Env.CHECKPOINT_PATH: str(store), Env.POD_INDEX: str(index), Env.PROGRESS_DIR: str(progress),
        Env.FAULTS: str(faults), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "torch.distributed.run", f"--nnodes={pods}:{pods}", f"--nproc-per-node={workers}",
        f"--max-restarts={restarts}", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=peer",
        "--local-addr=127.0.0.1", __file__,
    ]  # fmt: skip
    with open(progress / "log", "wb") as log:
        return subprocess.Popen(
            command, env={**os.environ, **ours, **settings}, stdout=log, stderr=log, start_new_session=True
        )


def _kill_when_held(
    faults: Path, step: int, launchers: Sequence[subprocess.Popen[bytes]], limit: float
) -> float | None:
    """Kill the worker that waits after `step`; Unix time of the kill, None when nobody came."""
    held, done = faults / f"kill-{step}.held", faults / f"kill-{step}.done"
    end = time.monotonic() + limit
    while time.monotonic() < end and all(launcher.poll() is None for launcher in launchers):
        if held.exists():
            pid = int(json.loads(held.read_text())["pid"])
            done.write_text("")
            os.kill(pid, signal.SIGKILL)
            return time.time()
        time.sleep(0.005)
    return None


def _recovered(store: Path, killed_at: float, launchers: Sequence[subprocess.Popen[bytes]]) -> dict[str, float] | None:
    """Seconds by phase until the first step after the kill, from the timeline that rank 0 writes."""
    end = time.monotonic() + RECOVERY_LIMIT_SECONDS
    while time.monotonic() < end and all(launcher.poll() is None for launcher in launchers):
        for path in store.glob("metrics/c*.timeline.json"):
            try:
                told = json.loads(path.read_text())
            except ValueError:
                continue  # half written
            if told.get("process_started", 0) > killed_at and told.get("first_step_done"):
                here, spans = killed_at, {}
                for phase, name in MOMENTS:
                    spans[phase], here = max(0.0, told[name] - here), told[name]
                return spans
        time.sleep(0.05)
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    from trainrun_trainer.worker import run

    sys.exit(int(run()["exit_code"]))
