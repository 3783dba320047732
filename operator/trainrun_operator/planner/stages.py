"""A run of several stages: which of them train, and the sum over those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainrun_api.stages import TRAIN, stages_of
from trainrun_api.v1alpha1 import TrainingRunSpec

from trainrun_operator.planner.plan import Plan


@dataclass(frozen=True)
class Total:
    """Of stages that run one after another."""

    days: float
    """Without faults."""
    days_with_faults: float
    device_days: float
    cost_usd: float | None
    """None: that of some stage is unknown."""


def total_of(plans: Sequence[Plan]) -> Total:
    """The sum."""
    costs = [plan.cost_usd for plan in plans]
    known = [cost for cost in costs if cost is not None]
    return Total(
        days=sum(plan.days for plan in plans),
        days_with_faults=sum(plan.days_with_faults for plan in plans),
        device_days=sum(plan.device_days for plan in plans),
        cost_usd=sum(known) if len(known) == len(costs) else None,
    )


def train_stages(spec: TrainingRunSpec) -> list[str]:
    """Names, in their order; a run without stages is one."""
    return [stage.name for stage in stages_of(spec) if stage.kind == TRAIN]


def other_stages(spec: TrainingRunSpec) -> list[str]:
    """Names and kinds of those that no plan is made of: each is one process for a while."""
    return [f"{stage.name} ({stage.kind})" for stage in stages_of(spec) if stage.kind != TRAIN]
