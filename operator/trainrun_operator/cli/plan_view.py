"""How a plan looks: facts, objections, and a table with bars where several are compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.bar import Bar
from rich.console import Console
from rich.table import Table

from trainrun_operator.planner.numbers import in_bytes, in_days, in_words, share
from trainrun_operator.planner.objections import is_impossible, objections
from trainrun_operator.planner.plan import Plan

BAR_WIDTH = 24


def show_plan(plan: Plan) -> None:
    """One plan on one screen."""
    console = Console(highlight=False, soft_wrap=True)
    wish, chip = plan.wish, plan.wish.machine.chip
    console.print(
        f"{in_words(wish.parameters)} parameters, {in_words(wish.tokens)} tokens, {wish.devices} x {chip.name} "
        f"({plan.nodes} x {wish.machine.instance_type})",
        style="bold",
    )
    for label, text in _facts(plan):
        console.print(f"  {label:<13}{text}")
    _show_objections(console, plan)


def _facts(plan: Plan) -> Iterator[tuple[str, str]]:
    wish, saving = plan.wish, plan.saving
    yield (
        "compute",
        (
            f"{plan.flops:.3g} operations; {share(plan.utilisation.share)} of the {wish.precision} peak "
            f"({plan.utilisation.source})"
        ),
    )
    if wish.is_precision_assumed:
        yield "precision", "bf16 is assumed, over fp32 weights, gradients and moments; a run's file says its own"
    yield "time", f"{in_days(plan.days)} without faults, {in_words(plan.device_days)} device-days"
    yield (
        "with faults",
        f"{in_days(plan.days_with_faults)}: {plan.ettr:.1%} of the time counts, {plan.faults:.1f} faults are to be "
        f"expected (one every {plan.hours_between_faults:,.0f} h)",
    )
    if plan.steps is not None:
        yield "steps", f"{plan.steps:,} of {wish.global_batch_rows} rows of {wish.row_tokens} tokens"
    if wish.trainable is not None:
        yield "LoRA", f"{wish.trainable:,.0f} trained parameters, {wish.trainable / wish.parameters:.2%} of the model"
    price = wish.price or wish.machine.price
    if plan.cost_usd is None or price is None:
        yield "cost", f"unknown: no price of {wish.machine.instance_type} is in the catalogue; give --price"
    else:
        per = plan.cost_usd / wish.tokens * 1e6
        yield (
            "cost",
            f"{plan.cost_usd:,.0f} USD, {per:.3g} a million tokens, at {price.usd_per_hour:.2f} a machine and hour "
            f"({price.source})",
        )
    yield "memory", _memory(plan)
    yield (
        "checkpoint",
        f"{in_bytes(saving.size_bytes)} every {in_days(saving.interval_seconds / 86400)}, {saving.seconds:.0f} s each "
        f"at {in_bytes(saving.size_bytes / saving.seconds)}/s; {in_bytes(saving.bytes_per_second)}/s would do it in a "
        "minute",
    )
    yield (
        "spares",
        f"{plan.spares or 'no'} more machine{'' if plan.spares == 1 else 's'}: with 99% nobody waits for a repair",
    )


def _memory(plan: Plan) -> str:
    wish, need = plan.wish, plan.memory
    one = "device" if wish.machine.workers_per_device == 1 else "worker process"
    over = f"one {one} holds the states" if plan.shards == 1 else f"states shared by {plan.shards or wish.workers}"
    if wish.mesh is not None:
        over += " as config.parallel says"
        if plan.fewest_shards is not None and plan.shards is not None and plan.fewest_shards < plan.shards:
            over += f" ({plan.fewest_shards} would do)"
    kept = f"activation_checkpointing={wish.activation_checkpointing or 'none'}"
    other = "" if wish.activation_checkpointing == "full" else f"; {in_bytes(plan.recomputed.total)} with full"
    return (
        f"{in_bytes(need.total)} a {one}, {over}: states {in_bytes(need.states)}, gathered weights "
        f"{in_bytes(need.gathered)}, whole gradients {in_bytes(need.gradients)}, bf16 copies {in_bytes(need.copies)}, "
        f"activations {in_bytes(need.activations)}, logits {in_bytes(need.logits)}; {kept}{other}"
    )


def _show_objections(console: Console, plan: Plan) -> None:
    for sentence in objections(plan):
        console.print(f"  ! {sentence}", style="red" if sentence.startswith("impossible") else "yellow")


def show_matrix(plans: Sequence[Plan]) -> None:
    """Days without faults, a row for each number of devices and a column for each size; then bars."""
    console = Console(highlight=False, soft_wrap=True)
    sizes = sorted({plan.wish.parameters for plan in plans})
    counts = sorted({plan.wish.devices for plan in plans})
    by_place = {(plan.wish.devices, plan.wish.parameters): plan for plan in plans}
    first = plans[0].wish.machine
    table = Table(title=f"days on {first.chip.name}, without faults", title_justify="left")
    table.add_column("devices", justify="right")
    table.add_column("machines", justify="right")
    for size in sizes:
        table.add_column(f"{in_words(size)}, {in_words(by_place[counts[0], size].wish.tokens)} tokens", justify="right")
    for count in counts:
        row = [by_place[count, size] for size in sizes]
        table.add_row(str(count), str(row[0].nodes), *(_cell(plan) for plan in row))
    console.print(table)
    console.print(_bars(plans))
    for sentence in dict.fromkeys(s for plan in plans for s in objections(plan) if is_impossible(plan)):
        console.print(f"! {sentence}", style="red")


def _cell(plan: Plan) -> str:
    return f"{plan.days:.1f}" + (" !" if is_impossible(plan) else "")


def _bars(plans: Sequence[Plan]) -> Table:
    longest = max(plan.days for plan in plans)
    bars = Table.grid(padding=(0, 1))
    for plan in plans:
        bars.add_row(
            in_words(plan.wish.parameters), f"x {plan.wish.devices}", Bar(longest, 0, plan.days, width=BAR_WIDTH),
            in_days(plan.days),
        )  # fmt: skip
    return bars


def as_json(plan: Plan) -> dict[str, Any]:
    """Every number of the plan, in plain units, and its objections."""
    wish = plan.wish
    facts = asdict(plan)
    facts["wish"] |= {"instance_type": wish.machine.instance_type, "chip": wish.machine.chip.name}
    del facts["wish"]["machine"]
    return {
        **facts,
        "device_days": plan.device_days,
        "days_with_faults": plan.days_with_faults,
        "faults": plan.faults,
        "steps": plan.steps,
        "memory_bytes": plan.memory.total,
        "memory_bytes_recomputed": plan.recomputed.total,
        "objections": objections(plan),
    }
