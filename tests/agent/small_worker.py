"""A worker without a model: real processes, a real all-reduce per step, the contract's files; told what to do by env.

TEST_STEPS, TEST_STEP_SECONDS, and TEST_ACT: JSON of {"rank", "step", "generation", "do"} objects, where `do` is
"kill", "raise", "hang" or a contract code that the rank returns (alone) or that all return ("all:31").
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import torch
import torch.distributed as dist
from trainrun_api.contract import CAUSE_OF_EXIT, Env, ExitCode, ProgressFile
from trainrun_trainer.agent import files


def run() -> dict[str, Any]:
    """The whole life of one worker."""
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    generation = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    folder = os.environ[Env.PROGRESS_DIR]
    steps, pause = int(os.environ.get("TEST_STEPS", "5")), float(os.environ.get("TEST_STEP_SECONDS", "0.02"))
    acts = [a for a in json.loads(os.environ.get("TEST_ACT", "[]")) if a.get("generation", generation) == generation]
    store = os.environ.get("TEST_STORE")  # where the durable step is kept, as a checkpoint would
    step = int(open(store).read()) if store and os.path.exists(store) else 0
    dist.init_process_group("gloo")
    print(f"generation {generation} starts at step {step}", flush=True)
    write(folder, local_rank, rank, generation, step, steps, "training")
    while step < steps:
        flag = torch.tensor([float(os.path.exists(os.path.join(folder, ProgressFile.STOP_REQUEST)))])
        dist.all_reduce(flag)
        if flag.item():
            request = files.read_json(folder, ProgressFile.STOP_REQUEST) or {"exit_code": 10}
            return outcome(request["exit_code"], step, steps)
        step += 1
        if rank == 0 and store and os.environ.get("TEST_SAVES", "1") == "1":
            with open(store + ".tmp", "w") as handle:
                handle.write(str(step))
            os.replace(store + ".tmp", store)
        dist.barrier()  # the step is saved before any rank acts after it: whoever ends itself takes rank 0 along
        time.sleep(pause)
        write(folder, local_rank, rank, generation, step, steps, "training")
        for act in acts:
            if act["step"] == step and (act["rank"] == rank or str(act["do"]).startswith("all:")):
                code = do(act["do"])
                if code is not None:
                    return outcome(code, step, steps)
    dist.barrier()
    return outcome(0, step, steps)


def do(act: Any) -> int | None:
    """Carry out one act; the contract code to return, if it is one."""
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "raise":
        raise ValueError("a fault of the program: API_TOKEN=hunter2")
    if act == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if act == "hang":
        time.sleep(600)
    if act == "exit":
        raise SystemExit(31)
    return int(str(act).removeprefix("all:"))


def outcome(code: int, step: int, steps: int) -> dict[str, Any]:
    """What a worker returns for a contract code."""
    final = {"step": step, "claim": 1} if code in (ExitCode.DONE, ExitCode.STOPPED, ExitCode.TIME_LIMIT) else None
    return {
        "exit_code": code,
        "cause": CAUSE_OF_EXIT[code],
        "message": f"code {code}",
        "step": step,
        "target_step": steps,
        "final_checkpoint": final,
    }


def write(folder: str, local_rank: int, rank: int, generation: int, step: int, steps: int, phase: str) -> None:
    """Replace this rank's progress file."""
    now = time.monotonic()
    saves = os.environ.get("TEST_SAVES", "1") == "1"
    record = {
        "schema": 1,
        "rank": rank,
        "local_rank": local_rank,
        "pid": os.getpid(),
        "generation": generation,
        "phase": phase,
        "step": step,
        "total_steps": steps,
        "loss": 1.0 / (step + 1),
        "written_monotonic": now,
        "step_monotonic": now,
        "durable_checkpoint": {"step": step if saves else 0, "claim": 1, "committed_monotonic": now},
    }
    files.write_json(folder, ProgressFile.rank(local_rank), record)
