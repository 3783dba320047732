"""How the plans of a run's train stages look: each for itself, then one table with their sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from trainrun_operator.cli.plan_view import as_json, show_plan
from trainrun_operator.planner.numbers import in_days, in_words
from trainrun_operator.planner.objections import is_impossible
from trainrun_operator.planner.plan import Plan
from trainrun_operator.planner.stages import total_of


def show_stages(plans: Mapping[str, Plan], others: Sequence[str]) -> None:
    """By the names of stages; `others` are not planned."""
    console = Console(highlight=False, soft_wrap=True)
    for name, plan in plans.items():
        console.print(f"stage {name}", style="bold")
        show_plan(plan)
    console.print(_table(plans))
    if others:
        console.print(f"  not planned, for each is one process for a while: {', '.join(others)}")


def _table(plans: Mapping[str, Plan]) -> Table:
    total = total_of(list(plans.values()))
    table = Table(title="train stages, one after another", title_justify="left", show_footer=True)
    table.add_column("stage", footer="total")
    table.add_column("tokens", justify="right")
    table.add_column("devices", justify="right")
    table.add_column("without faults", justify="right", footer=in_days(total.days))
    table.add_column("with faults", justify="right", footer=in_days(total.days_with_faults))
    table.add_column("USD", justify="right", footer=_cost(total.cost_usd))
    for name, plan in plans.items():
        table.add_row(
            name, in_words(plan.wish.tokens), f"{plan.wish.devices} x {plan.wish.machine.chip.name}",
            in_days(plan.days) + (" !" if is_impossible(plan) else ""), in_days(plan.days_with_faults),
            _cost(plan.cost_usd),
        )  # fmt: skip
    return table


def _cost(usd: float | None) -> str:
    return "unknown" if usd is None else f"{usd:,.0f}"


def stages_as_json(plans: Mapping[str, Plan], others: Sequence[str]) -> dict[str, Any]:
    """The plan of each, the sum, and what is not in it."""
    return {
        "stages": [{"stage": name, **as_json(plan)} for name, plan in plans.items()],
        "total": asdict(total_of(list(plans.values()))),
        "not_planned": list(others),
    }
