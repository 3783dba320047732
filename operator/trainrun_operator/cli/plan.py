"""`trainrun plan`: what a run will take, from a few numbers or from its file."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainrun_api.manifest import load_manifest
from trainrun_api.v1alpha1 import TrainingRunSpec
from trainrun_api.validate import validate_file

from trainrun_operator.cli.plan_view import as_json, show_matrix, show_plan
from trainrun_operator.planner.compute import optimal_parameters, optimal_tokens
from trainrun_operator.planner.from_run import CannotPlan, find_machine, wish_from_run
from trainrun_operator.planner.hardware import Price
from trainrun_operator.planner.numbers import NotANumber, from_words
from trainrun_operator.planner.plan import Wish, make_plan
from trainrun_operator.planner.shapes import nearest

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


def plan(question: Question, *, is_json: bool) -> int:
    """Print the plan, or a table if several sizes or numbers of devices are asked for; returns the exit code."""
    try:
        if question.file is not None and (problems := validate_file(question.file)):
            for problem in problems:
                print(f"{question.file}: {problem.message}", file=sys.stderr)
            return REFUSED
        plans = [make_plan(wish) for wish in wishes(question)]
    except (CannotPlan, NotANumber) as error:
        print(f"trainrun plan: {error}", file=sys.stderr)
        return WRONG_ARGUMENTS
    if is_json:
        print(json.dumps([as_json(one) for one in plans] if len(plans) > 1 else as_json(plans[0]), indent=2))
    elif len(plans) > 1:
        show_matrix(plans)
    else:
        show_plan(plans[0])
    return 0


def wishes(question: Question) -> list[Wish]:
    """One for each size and number of devices. Raises CannotPlan, NotANumber."""
    counts: list[float | None] = [*_numbers(question.devices)] or [None]
    bases = _from_numbers(question) if question.file is None else _from_file(question.file, question)
    return [_adapted(base, count, question) for base in bases for count in counts]


def _from_file(file: Path, question: Question) -> list[Wish]:
    spec = TrainingRunSpec.model_validate(load_manifest(file)["spec"])
    sizes: list[float | None] = [*_numbers(question.params)] or [None]
    return [wish_from_run(spec, file.parent, question.instance, size) for size in sizes]


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
    return replace(wish, **{name: value for name, value in given.items() if value is not None})


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
