"""One side of `trainer_speed.py`: the shipped worker, whole (metrics, progress, agreement, finite check)."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any

from trainrun_api.contract import Env
from trainrun_api.train_config import TrainConfig
from trainrun_trainer import worker
from trainrun_trainer.metrics import Metrics
from turns import wait_for_turn

WARMUP_STEPS = 4


def main(config: TrainConfig, store: str) -> None:
    """Train in a fresh run that shares only the prepared rows, then print one JSON line."""
    marks: list[float] = []
    losses: list[float] = []
    write = Metrics.step

    def timed(self: Metrics, state: Any, agreed: Any, *rest: Any) -> None:
        write(self, state, agreed, *rest)
        marks.append(time.process_time())
        losses.append(agreed.loss)
        wait_for_turn()

    Metrics.step = timed  # type: ignore[method-assign,assignment]
    with tempfile.TemporaryDirectory() as scratch:
        os.makedirs(os.path.join(store, "data"), exist_ok=True)
        os.symlink(os.path.join(store, "data"), os.path.join(scratch, "data"))
        os.environ.update({
            Env.RUN: "speed", Env.RUN_UID: "speed", Env.ATTEMPT: "0", Env.CONFIG: config.model_dump_json(),
            Env.RESUME: json.dumps({"from": "Latest"}), Env.CHECKPOINT_PATH: scratch, Env.ACCELERATOR: "cpu",
            Env.CHECKPOINT: json.dumps({"path": scratch, "interval": 1_000_000, "keepLast": 2}), Env.REPLICAS: "1",
            Env.POD_INDEX: "0", Env.PROGRESS_DIR: scratch, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1",
            "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "TORCHELASTIC_RESTART_COUNT": "0",
        })  # fmt: skip
        outcome = worker.run()
    if outcome["exit_code"] != 0:
        sys.exit(str(outcome))
    steps = len(marks) - WARMUP_STEPS
    print(json.dumps({
        "tokens": steps * config.global_batch_rows * config.data.row_tokens,
        "cpu_seconds": marks[-1] - marks[WARMUP_STEPS - 1],
        "loss": sum(losses) / len(losses),
    }))  # fmt: skip


if __name__ == "__main__":
    main(TrainConfig.model_validate_json(sys.argv[1]), sys.argv[2])
