"""Entry of one worker process: environment -> configuration -> setup -> train -> outcome.

Every contract code is *returned*, because torchelastic restarts what exits abnormally; crashes propagate.
This module is what a fork server preloads: importing it loads torch and the model classes and does nothing.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from trainrun_api.contract import Outcome

from trainrun_trainer.corpus.texts import again_if_texts_change
from trainrun_trainer.device import as_device_error
from trainrun_trainer.environment import Environment, ToolEnvironment, current
from trainrun_trainer.errors import TrainerError
from trainrun_trainer.logs import log
from trainrun_trainer.ranks import Ranks
from trainrun_trainer.setup import Run, join, set_up
from trainrun_trainer.stages.train_stage import Entered, enter, leave
from trainrun_trainer.storage import OpenStorage
from trainrun_trainer.stores import open_storage
from trainrun_trainer.train import train


def run(open_storage: OpenStorage = open_storage) -> dict[str, Any]:
    """Train, or do another kind of stage, as the environment says; returns a contract.Outcome as a dict.

    Never raises for a contract code. Any other exception is a crash and propagates.
    """
    started = time.time()
    built: list[Run] = []
    env: Environment | ToolEnvironment | None = None
    try:
        env = current()
        if isinstance(env, ToolEnvironment):
            from trainrun_trainer.stages.tool_stage import run_stage  # what training does not need is not preloaded

            result = run_stage(env, open_storage)
        else:
            result = _train(env, open_storage, started, built)
    except TrainerError as error:
        result = _failed(error, env, built)
    except Exception as error:
        translated = as_device_error(error, _batch(env))
        if translated is None:
            raise
        result = _failed(translated, env, built)
    log("outcome", exit_code=result.exit_code, cause=result.cause, message=result.message, step=result.step)
    return asdict(result)


def _train(env: Environment, open_storage: OpenStorage, started: float, built: list[Run]) -> Outcome:
    """The run's only stage, or one of several; `built` gets the Run as soon as there is one."""
    ranks = join(env)
    entered, run = again_if_texts_change(lambda: _begin(env, ranks, open_storage, started))
    if run is None:
        assert entered is not None and entered.outcome is not None
        result = entered.outcome
    else:
        built.append(run)
        result = train(run)
        if entered is not None:
            ranks.decide(lambda: leave(entered, result, open_storage))
    ranks.leave()
    return result


def _begin(
    env: Environment, ranks: Ranks, open_storage: OpenStorage, started: float
) -> tuple[Entered | None, Run | None]:
    """The stage, if there are several; what trains, unless that stage is done already."""
    if env.stage is None:
        return None, set_up(env, ranks, open_storage, started)
    entered = ranks.decide(lambda: enter(env, open_storage))
    if entered.outcome is not None:
        return entered, None
    return entered, set_up(entered.environment(env), ranks, open_storage, started)


def _failed(error: TrainerError, env: Environment | ToolEnvironment | None, built: list[Run]) -> Outcome:
    run = built[0] if built else None
    durable = run.checkpoints.durable if run else None
    return Outcome(
        exit_code=int(error.exit_code), cause=error.cause, message=str(error),
        step=run.state.step if run else None,
        target_step=env.config.total_steps if isinstance(env, Environment) else None,
        durable_checkpoint=durable.facts() if durable else None,
        seconds_by_class=dict(run.progress.stopwatch.seconds) if run else {},
    )  # fmt: skip


def _batch(env: Environment | ToolEnvironment | None) -> str:
    if isinstance(env, ToolEnvironment):
        return f"config.batch_tokens={env.config.get('batch_tokens', '4096')}"
    if env is None:
        return "an unknown batch"
    config = env.config
    return (
        f"micro_batch_rows={config.micro_batch_rows}, data.row_tokens={config.data.row_tokens}, "
        f"activation_checkpointing={config.activation_checkpointing}"
    )
