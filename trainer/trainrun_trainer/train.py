"""The training loop. Everything that happens in a step is a line here, in its order."""

from __future__ import annotations

import time
from pathlib import Path

from trainrun_api.contract import CAUSE_OF_EXIT, ExitCode, Outcome

from trainrun_trainer.errors import NumericalFault, SaveFailed, StorageRefused
from trainrun_trainer.export import Content, Exported, export, lineage_of, whole_model
from trainrun_trainer.logs import log
from trainrun_trainer.optimizer import set_learning_rate
from trainrun_trainer.parallel import collect_gradients
from trainrun_trainer.progress import PATIENCE_FACTOR
from trainrun_trainer.schedule import learning_rate
from trainrun_trainer.setup import Run
from trainrun_trainer.step import agree, clip, reduce_gradients


def train(run: Run) -> Outcome:
    """Train from `run.state` to the end, or until a stop request; returns what happened.

    Raises NumericalFault, StorageRefused and whatever crashes.
    """
    config, plan, progress = run.config, run.plan, run.progress
    seconds_before = dict(progress.stopwatch.seconds)

    if run.checkpoints.durable is None:
        save(run, is_required=True)

    while run.state.step < plan.total_steps:
        if plan.is_eval_due(run.state.step):
            evaluate(run)

        step = run.state.step + 1
        slots = [(number, run.rows.slot(step, number)) for number in plan.slots_of(run.ranks.rank)]
        num_targets = run.rows.num_targets(step)
        progress.stopwatch.lap("data")

        loss = reduce_gradients(run.model, step, slots, num_targets, config.seed, config.precision)
        gradients = collect_gradients(run.shards)
        rows_sum = sum(slot.rows_sum for _, slot in slots)
        agreed = agree(run.ranks, run.shards, gradients, loss, rows_sum, is_save_time(run), run.stop_requests.code())
        if not agreed.is_finite:
            raise NumericalFault(
                f"step {step}: loss={agreed.loss} gradient norm={agreed.grad_norm}; expected finite numbers. "
                "The weights were not changed"
            )
        clip(gradients, agreed.grad_norm, config.optimizer.clip_norm)
        rate = learning_rate(step, config.optimizer.lr, config.schedule, plan.total_steps)
        set_learning_rate(run.optimizer, rate)
        run.optimizer.step()
        run.optimizer.zero_grad()
        step_tokens = plan.global_batch_rows * config.data.row_tokens
        run.state = run.state.after_step(step_tokens, agreed.rows_sum)
        seconds = progress.stopwatch.lap("step")

        run.metrics.step(run.state, agreed, rate, progress.stopwatch.since(seconds_before))
        seconds_before = dict(progress.stopwatch.seconds)
        progress.step_done(step, agreed.loss, run.state.tokens, step_tokens, seconds)
        note_first_step(run)
        run.faults.hold_after(step)

        if agreed.stop_code is not None and step < plan.total_steps:
            save(run, is_required=True)
            return outcome(run, agreed.stop_code, f"stopped after step {step}, as asked")
        if plan.is_save_due(step) or agreed.save_now:
            save(run, is_required=step == plan.total_steps)

    if plan.is_eval_due(run.state.step):
        evaluate(run)
    export_result(run)
    return outcome(run, ExitCode.DONE, f"trained {plan.total_steps} steps")


def is_save_time(run: Run) -> bool:
    """Rank 0's clock says that a checkpoint is due by time; the step's all-reduce tells the others."""
    seconds = run.plan.save.seconds
    if run.ranks.rank != 0 or seconds is None:
        return False
    return time.monotonic() - run.checkpoints.tried_monotonic >= seconds


def save(run: Run, is_required: bool) -> None:
    """Commit a checkpoint of the current state, then prune.

    A failed save does not stop training; where the checkpoint is required it is StorageRefused (41).
    """
    try:
        with run.progress.during("checkpointing", run.checkpoints.first_save_seconds):
            durable = run.checkpoints.commit(run.checkpoints.snapshot(run.state), run.metrics.settle)
            run.progress.saved(durable, None)
            run.checkpoints.prune()
    except SaveFailed as error:
        log("save-failed", step=run.state.step, message=str(error))
        run.progress.saved(run.checkpoints.durable, str(error))
        if is_required:
            raise StorageRefused(str(error)) from error
    run.progress.stopwatch.lap("save")


def evaluate(run: Run) -> None:
    """Held-out perplexity of the current weights, into the metrics."""
    if run.held_out is None:
        return
    slowest = run.progress.slowest_step_seconds()
    share = run.held_out.num_rows / run.plan.global_batch_rows
    with run.progress.during("evaluating", None if slowest is None else PATIENCE_FACTOR * slowest * share):
        run.metrics.evaluation(run.state.step, run.held_out.evaluate(run.model, run.ranks))
    run.progress.stopwatch.lap("evaluate")


def export_result(run: Run) -> None:
    """Write `export/` from the final weights; every rank returns after it is durable."""
    run.progress.phase("finishing")
    durable = run.checkpoints.durable
    assert durable is not None and durable.step == run.state.step, "the final checkpoint is durable before the export"
    config = run.config.model_dump(mode="json")
    base = run.checkpoints.described["base"]
    parent = lineage_of(Path(run.config.model.path)) if run.config.model.path is not None else None
    exported = Exported(run.state.step, durable.state_digest, run.data.data_hash, config, parent, base)
    export(run.ranks, run.storage, run.claim, content_of(run), exported)
    run.ranks.barrier()
    run.progress.stopwatch.lap("export")


def content_of(run: Run) -> Content:
    """What is exported: the whole model, or the adapters alone."""
    tokenizer = run.data.folder / "tokenizer"
    if run.config.lora is None:
        return whole_model(run.model, run.shards, tokenizer, run.config.export.max_shard_bytes)
    from trainrun_trainer.adapters import adapter_folder  # imported already, by the setup

    return adapter_folder(run.model, run.shards, tokenizer)


def note_first_step(run: Run) -> None:
    """Once per worker group: the times of its start, for the recovery table."""
    if "first_step_done" not in run.instants:
        run.instants["first_step_done"] = time.time()
        run.metrics.timeline(run.instants)


def outcome(run: Run, code: int, message: str) -> Outcome:
    """What this worker returns for a contract code that is no fault."""
    durable = run.checkpoints.durable
    facts = None if durable is None else durable.facts()
    return Outcome(
        exit_code=int(code), cause=CAUSE_OF_EXIT[code], message=message, step=run.state.step,
        target_step=run.plan.total_steps, final_checkpoint=facts, durable_checkpoint=facts,
        seconds_by_class=dict(run.progress.stopwatch.seconds),
    )  # fmt: skip
