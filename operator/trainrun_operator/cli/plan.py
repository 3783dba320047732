"""`trainrun plan`: what a run will take, from a few numbers or from its file, each of its train stages for itself."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainrun_api.manifest import load_manifest
from trainrun_api.stages import TRAIN
from trainrun_api.v1alpha1 import TrainingRunSpec
from trainrun_api.validate import validate_file

from trainrun_operator.cli.plan_stages import show_stages, stages_as_json
from trainrun_operator.cli.plan_view import as_json, show_matrix, show_plan
from trainrun_operator.planner.compute import optimal_parameters, optimal_tokens
from trainrun_operator.planner.from_run import find_machine, wish_from_run
from trainrun_operator.planner.hardware import Price
from trainrun_operator.planner.numbers import NotANumber, from_words
from trainrun_operator.planner.plan import Plan, Wish, make_plan
from trainrun_operator.planner.shapes import nearest
from trainrun_operator.planner.sizes import CannotPlan
from trainrun_operator.planner.stages import other_stages, train_stages

WRONG_ARGUMENTS, REFUSED = 2, 20


@dataclass(frozen=True)
class Question:
    """The options as they were typed; None: not given."""

    file: Path | None = None
    params: str | None = None
    tokens: str | None = None
    instance: str | None = None
    devices: str | None = None
    days: float | None = None
    utilisation: float | None = None
    price: float | None = None
    lora_rank: int | None = None
    lora_targets: str = "q_proj,v_proj"
    row_tokens: int | None = None
    micro_batch_rows: int | None = None
    global_batch_rows: int | None = None
    store_rate: str | None = None
    fault_rate: float | None = None
    stage: str | None = None


def plan(question: Question, *, is_json: bool) -> int:
    """Print the plan: of each train stage, or a table if several sizes or numbers of devices are asked for.

    Returns the exit code.
    """
    try:
        if question.file is not None and (problems := validate_file(question.file)):
            for problem in problems:
                print(f"{question.file}: {problem.message}", file=sys.stderr)
            return REFUSED
        spec = None if question.file is None else TrainingRunSpec.model_validate(load_manifest(question.file)["spec"])
        names = _stages(spec, question)
        plans = [make_plan(wish) for name in names for wish in _wishes(question, spec, name)]
    except (CannotPlan, NotANumber) as error:
        print(f"trainrun plan: {error}", file=sys.stderr)
        return WRONG_ARGUMENTS
    if spec is not None and spec.stages and question.stage is None and len(plans) == len(names):
        _show_chain(dict(zip(names, plans, strict=True)), other_stages(spec), is_json=is_json)
    elif is_json:
        print(json.dumps([as_json(one) for one in plans] if len(plans) > 1 else as_json(plans[0]), indent=2))
    elif len(plans) > 1:
        show_matrix(plans)
    else:
        show_plan(plans[0])
    return 0


def _show_chain(plans: dict[str, Plan], others: list[str], *, is_json: bool) -> None:
    if is_json:
        print(json.dumps(stages_as_json(plans, others), indent=2))
    else:
        show_stages(plans, others)


def _stages(spec: TrainingRunSpec | None, question: Question) -> list[str]:
    """Names of the train stages to plan; without a file there is one. Raises CannotPlan."""
    if spec is None:
        if question.stage is not None:
            raise CannotPlan(f"--stage {question.stage}: give -f with the TrainingRun that has this stage")
        return [TRAIN]
    names = train_stages(spec)
    if question.stage is not None:
        if question.stage not in names:
            raise CannotPlan(f"--stage {question.stage}: the run's train stages are {', '.join(names) or 'none'}")
        return [question.stage]
    if not names:
        raise CannotPlan("spec.stages: none is of kind train, and other kinds are not planned")
    if len(names) > 1 and _is_of_one_stage(question):
        raise CannotPlan(
            "--tokens, --days, --lora-rank and several --params or --devices are of one training, and this run has "
            f"{len(names)}: choose one with --stage, of {', '.join(names)}"
        )
    return names


def _is_of_one_stage(question: Question) -> bool:
    several = [text for text in (question.params, question.devices) if text is not None and "," in text]
    return bool(several) or any(one is not None for one in (question.tokens, question.days, question.lora_rank))


def _wishes(question: Question, spec: TrainingRunSpec | None, stage: str) -> list[Wish]:
    """One for each size and number of devices. Raises CannotPlan, NotANumber."""
    counts: list[float | None] = [*_numbers(question.devices)] or [None]
    if spec is None or question.file is None:
        bases = _from_numbers(question)
    else:
        sizes: list[float | None] = [*_numbers(question.params)] or [None]
        bases = [wish_from_run(spec, stage, question.file.parent, question.instance, size) for size in sizes]
    return [_adapted(base, count, question) for base in bases for count in counts]


def _from_numbers(question: Question) -> list[Wish]:
    if question.params is not None:
        return [_wish(size, question) for size in _numbers(question.params)]
    if question.tokens is not None:
        return [_wish(optimal_parameters(from_words(question.tokens)), question)]
    raise CannotPlan("give --params (a model's size, such as 6.6B), --tokens, or -f with a TrainingRun's file")


def _wish(size: float, question: Question) -> Wish:
    if question.instance is None or question.devices is None:
        raise CannotPlan("give --instance (such as ml.p4d.24xlarge) and --devices (such as 64, or 64,128)")
    tokens = optimal_tokens(size) if question.tokens is None else from_words(question.tokens)
    return Wish(size, tokens, find_machine(question.instance), 1, nearest(size))


def _adapted(wish: Wish, devices: float | None, question: Question) -> Wish:
    """The options win over the file."""
    given: dict[str, Any] = {
        "devices": None if devices is None else max(1, int(devices)),
        "tokens": None if question.tokens is None else from_words(question.tokens),
        "within_days": question.days,
        "utilisation": question.utilisation,
        "price": None if question.price is None else Price(question.price, "as given"),
        "row_tokens": question.row_tokens,
        "micro_batch_rows": question.micro_batch_rows,
        "global_batch_rows": question.global_batch_rows,
        "store_bytes_per_second": None if question.store_rate is None else from_words(question.store_rate),
        "failures_per_1000_node_days": question.fault_rate,
        "trainable": _trainable(wish, question),
    }
    return _filling_its_mesh(replace(wish, **{name: value for name, value in given.items() if value is not None}))


def _filling_its_mesh(wish: Wish) -> Wish:
    mesh = wish.mesh
    if mesh is not None and mesh.shards(wish.workers) is None:
        shards = "" if mesh.dp_shard is None else f" x dp_shard={mesh.dp_shard}"
        raise CannotPlan(
            f"config.parallel: dp_replicate={mesh.dp_replicate}{shards} does not fill {wish.workers} worker processes; "
            "give --devices that it fills, or change it"
        )
    return wish


def _trainable(wish: Wish, question: Question) -> float | None:
    if question.lora_rank is None:
        return None
    targets = [target.strip() for target in question.lora_targets.split(",")]
    try:
        return wish.shape.lora_parameters(question.lora_rank, targets)
    except KeyError as error:
        raise CannotPlan(
            f"--lora-targets {question.lora_targets}: {error.args[0]} is none of q_proj, k_proj, v_proj, o_proj, "
            "gate_proj, up_proj, down_proj"
        ) from error


def _numbers(text: str | None) -> list[float]:
    return [] if text is None else [from_words(part) for part in text.split(",")]
