"""Entry of one worker process: environment -> configuration -> setup -> train -> outcome.

Every contract code is *returned*, because torchelastic restarts what exits abnormally; crashes propagate.
This module is what a fork server preloads: importing it loads torch and the model classes and does nothing.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from trainrun_api.contract import Outcome

from trainrun_trainer.device import as_device_error
from trainrun_trainer.environment import Environment, current
from trainrun_trainer.errors import TrainerError
from trainrun_trainer.logs import log
from trainrun_trainer.setup import OpenStorage, Run, set_up
from trainrun_trainer.storage import open_storage
from trainrun_trainer.train import train


def run(open_storage: OpenStorage = open_storage) -> dict[str, Any]:
    """Train as the environment says; returns a contract.Outcome as a dict.

    Never raises for a contract code. Any other exception is a crash and propagates.
    """
    started = time.time()
    built: Run | None = None
    env: Environment | None = None
    try:
        env = current()
        built = set_up(env, open_storage, started)
        result = train(built)
        built.ranks.leave()
    except TrainerError as error:
        result = _failed(error, env, built)
    except Exception as error:
        translated = as_device_error(error, _batch(env))
        if translated is None:
            raise
        result = _failed(translated, env, built)
    log("outcome", exit_code=result.exit_code, cause=result.cause, message=result.message, step=result.step)
    return asdict(result)


def _failed(error: TrainerError, env: Environment | None, built: Run | None) -> Outcome:
    durable = built.checkpoints.durable if built else None
    return Outcome(
        exit_code=int(error.exit_code), cause=error.cause, message=str(error),
        step=built.state.step if built else None, target_step=env.config.total_steps if env else None,
        durable_checkpoint=durable.facts() if durable else None,
        seconds_by_class=dict(built.progress.stopwatch.seconds) if built else {},
    )  # fmt: skip


def _batch(env: Environment | None) -> str:
    if env is None:
        return "an unknown batch"
    config = env.config
    return (
        f"micro_batch_rows={config.micro_batch_rows}, data.row_tokens={config.data.row_tokens}, "
        f"activation_checkpointing={config.activation_checkpointing}"
    )
