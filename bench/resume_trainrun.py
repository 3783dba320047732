"""One side of `resume_start.py`: the shipped worker.

make CONFIG STORE STEP      prepare the rows and commit a checkpoint of that step
resume CONFIG STORE STEP    resume from it, as a new attempt, up to the next step
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from typing import Any

from trainrun_api.contract import Env
from trainrun_trainer import worker
from trainrun_trainer.environment import Environment, current
from trainrun_trainer.metrics import Metrics
from trainrun_trainer.optimizer import set_step
from trainrun_trainer.setup import join, set_up
from trainrun_trainer.stores import open_storage


def orders(config: str, store: str, attempt: int, progress: str) -> None:
    """The environment of a worker."""
    os.environ.update({
        Env.RUN: "resume", Env.RUN_UID: "resume", Env.ATTEMPT: str(attempt), Env.CONFIG: config,
        Env.RESUME: json.dumps({"from": "Latest"}), Env.CHECKPOINT_PATH: store, Env.ACCELERATOR: "cpu",
        Env.CHECKPOINT: json.dumps({"path": store, "interval": 1_000_000, "keepLast": 2}), Env.REPLICAS: "1",
        Env.POD_INDEX: "0", Env.PROGRESS_DIR: progress, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1",
        "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "TORCHELASTIC_RESTART_COUNT": "0",
    })  # fmt: skip


def make(step: int) -> dict[str, Any]:
    """A run whose counter is set forward, committed."""
    env = current()
    assert isinstance(env, Environment)
    run = set_up(env, join(env), open_storage, time.time())
    run.state = replace(run.state, step=step)
    set_step(run.optimizer, step)
    run.checkpoints.commit(run.checkpoints.snapshot(run.state), run.metrics.settle)
    run.ranks.leave()
    return {"rows": run.data.split("domain", "train")["rows"]}


def resume() -> dict[str, Any]:
    """Up to the line that the first step writes."""
    found: dict[str, Any] = {}
    write = Metrics.step
    cpu, wall = time.process_time(), time.monotonic()

    def noted(self: Metrics, state: Any, agreed: Any, *rest: Any) -> None:
        write(self, state, agreed, *rest)
        found.update(step=state.step, cpu_seconds=time.process_time() - cpu, seconds=time.monotonic() - wall)
        raise KeyboardInterrupt  # nothing of the run's end: the next measurement resumes from the same checkpoint

    Metrics.step = noted  # type: ignore[method-assign,assignment]
    try:
        sys.exit(str(worker.run()))
    except KeyboardInterrupt:
        return found


def main(mode: str, config: str, store: str, step: int) -> None:
    """Do it; one JSON line."""
    with tempfile.TemporaryDirectory() as progress:
        attempt = 0 if mode == "make" else int(time.time())
        orders(config, store, attempt, progress)
        print(json.dumps(make(step) if mode == "make" else resume()), flush=True)
    os._exit(0)  # a process group that was left in mid-step has nothing to say


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
