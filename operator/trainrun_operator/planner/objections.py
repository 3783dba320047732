"""What a careful reader would object to in a plan: the impossible first, then what is doubtful."""

from __future__ import annotations

from collections.abc import Iterator

from trainrun_operator.planner import compute
from trainrun_operator.planner.memory import HEADROOM, fits
from trainrun_operator.planner.numbers import in_bytes, in_days, in_words, share
from trainrun_operator.planner.plan import Plan

HIGHEST_SEEN = 0.60
"""Of the peak, 6 operations per parameter and token: nothing published in bf16 is above."""
FEW_TOKENS = 10.0
MANY_NODES_ETTR = 0.9


def objections(plan: Plan) -> list[str]:
    """Sentences; none if nothing speaks against it."""
    return [*_compute(plan), *_precision(plan), *_memory(plan), *_shape(plan)]


def is_impossible(plan: Plan) -> bool:
    """No hardware of this kind can do it."""
    return plan.utilisation.share > 1.0 or plan.is_too_big


def _compute(plan: Plan) -> Iterator[str]:
    wish, used = plan.wish, plan.utilisation
    what = f"{in_words(wish.parameters)} parameters on {in_words(wish.tokens)} tokens"
    if used.share > 1.0:
        yield (
            f"impossible: {what} in {in_days(plan.days)} on {wish.devices} x {wish.machine.chip.name} would need "
            f"{share(used.share)} of the chips' peak; {_what_would_do(plan)}"
        )
    elif used.share > HIGHEST_SEEN and wish.precision == "bf16":
        yield (
            f"doubtful: {share(used.share)} of the chips' peak is assumed, and nothing published in bf16 is above "
            f"{share(HIGHEST_SEEN)}; {_what_would_do(plan)}"
        )
    elif not used.is_measured and wish.utilisation is None and wish.within_days is None:
        yield f"the utilisation of {share(used.share)} is {used.source}: measure yours and give --utilisation"
    if wish.trainable is None and wish.tokens < FEW_TOKENS * wish.parameters:
        yield (
            f"{wish.tokens / wish.parameters:.1f} tokens a parameter: {compute.TOKENS_PER_PARAMETER:g} are "
            f"compute-optimal for training from scratch ({in_words(compute.optimal_tokens(wish.parameters))}); "
            "fine for continual pre-training and tuning"
        )
    if plan.ettr < MANY_NODES_ETTR:
        yield (
            f"only {share(plan.ettr)} of the time would count, with a fault every {plan.hours_between_faults:.1f} h "
            f"and {plan.saving.seconds:.0f} s for a checkpoint: a faster store helps first (--store-rate)"
        )


def _what_would_do(plan: Plan) -> str:
    usual = 0.45
    days = plan.days * plan.utilisation.share / usual
    devices = plan.wish.devices * plan.utilisation.share / usual
    return f"at {share(usual)} it takes {in_days(days)}, or {devices:,.0f} devices"


def _precision(plan: Plan) -> Iterator[str]:
    chip = plan.wish.machine.chip
    if plan.wish.precision == "fp32":
        yield (
            f"config.precision=fp32: the matrix units of {chip.name} are not used, {chip.fp32_flops / 1e12:g} TFLOP/s "
            f"are left of {chip.peak_flops / 1e12:g}; set config.precision: bf16, which is "
            f"{chip.peak_flops / chip.fp32_flops:.0f} times as fast at the same share of its peak, and keeps weights, "
            "gradients and moments in fp32"
        )


def _memory(plan: Plan) -> Iterator[str]:
    machine = plan.wish.machine
    per = machine.workers_per_device
    has = f"{machine.chip.name} has {in_bytes(machine.worker_bytes)}"
    if per > 1:
        has += f" for each of its {per} worker processes"
    if plan.is_too_big:
        yield (
            f"impossible: {_sharing(plan)} needs {in_bytes(plan.recomputed.total)} of each, all layers recomputed, and "
            f"{has}, of which {share(HEADROOM)} may be filled; {_what_would_fit(plan)}"
        )
    elif not fits(plan.memory, machine.worker_bytes):
        yield (
            f"activations do not fit beside the states ({in_bytes(plan.memory.total)}, and {has}): recompute them with "
            f"activation_checkpointing=full ({in_bytes(plan.recomputed.total)}), or share the states over more devices"
        )


def _sharing(plan: Plan) -> str:
    wish = plan.wish
    one, many = ("device", "devices") if wish.machine.workers_per_device == 1 else ("process", "worker processes")
    if wish.mesh is None:
        return f"even shared by {wish.workers} {many} it"
    sharers = f"{plan.shards} {one if plan.shards == 1 else many}"
    return f"config.parallel: one copy of the states shared by {sharers}, {wish.mesh.dp_replicate} times,"


def _what_would_fit(plan: Plan) -> str:
    fewest, need = plan.fewest_shards, plan.recomputed
    if fewest is not None:
        return f"set dp_shard: {fewest} and dp_replicate: {plan.wish.workers // fewest}"
    if need.total - need.states > HEADROOM * plan.wish.machine.worker_bytes:
        return (
            f"{in_bytes(need.total - need.states)} of it are on each, however many there are: take devices with more "
            "memory, shorter rows, or a smaller micro-batch"
        )
    return "take more devices, LoRA, or a smaller micro-batch"


def _shape(plan: Plan) -> Iterator[str]:
    wish = plan.wish
    if wish.devices % wish.machine.devices:
        yield (
            f"{wish.devices} devices are no whole number of {wish.machine.instance_type} ({wish.machine.devices} "
            f"each), which are paid for whole"
        )
    if wish.is_shape_assumed:
        shape = wish.shape
        yield (
            f"only the size is known: memory is that of {shape.layers} layers of width {shape.hidden} and a "
            f"vocabulary of {shape.vocabulary:,} (give the run's file for its own)"
        )
