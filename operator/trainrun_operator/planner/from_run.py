"""A wish read from a TrainingRun: sizes, tokens, devices, machine. The run has been validated before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainrun_api.train_config import LoraConfig
from trainrun_api.v1alpha1 import TrainingRunSpec

from trainrun_operator.planner.hardware import MACHINES, Machine
from trainrun_operator.planner.plan import Wish
from trainrun_operator.planner.shapes import DEFAULT_TARGETS, Shape, nearest


class CannotPlan(Exception):
    """The run does not say enough; the message says which option helps."""


def wish_from_run(
    spec: TrainingRunSpec, folder: Path, instance: str | None = None, parameters: float | None = None
) -> Wish:
    """What the run asks for; `folder` is that of its file, `instance` and `parameters` come before its own.

    Raises CannotPlan.
    """
    config = spec.config
    if config is None:
        raise CannotPlan("spec.command: the run brings its own program, so its model is not known; give --params")
    rows = config.total_steps * config.global_batch_rows
    shape = _shape(config.model_dump(), folder) if parameters is None else nearest(parameters)
    return Wish(
        parameters=parameters or shape.parameters,
        tokens=float(rows * config.data.row_tokens),
        machine=_machine(instance or spec.workers.instance_type),
        devices=spec.workers.replicas * spec.workers.devices_per_worker,
        shape=shape,
        is_shape_assumed=parameters is not None,
        trainable=None if config.lora is None else _trainable(config.lora, shape),
        row_tokens=config.data.row_tokens,
        micro_batch_rows=config.micro_batch_rows,
        global_batch_rows=config.global_batch_rows,
    )


def _trainable(lora: LoraConfig, shape: Shape) -> float:
    try:
        return shape.lora_parameters(lora.r, lora.target_modules or DEFAULT_TARGETS)
    except KeyError as error:
        raise CannotPlan(
            f"config.lora.target_modules: {error.args[0]} is no module of a Llama-like layer, which is all that can be "
            "planned with adapters; give --params and --lora-rank, or plan without lora"
        ) from error


def _machine(instance: str | None) -> Machine:
    if instance is None:
        raise CannotPlan(
            f"spec.workers.instanceType is not set, so days and memory are unknown; give --instance, one of "
            f"{', '.join(MACHINES)}"
        )
    return find_machine(instance)


def find_machine(instance: str) -> Machine:
    """By its name, with or without "ml.". Raises CannotPlan."""
    found = MACHINES.get(instance if instance.startswith("ml.") else f"ml.{instance}")
    if found is None:
        raise CannotPlan(f"instance type {instance} is not in the planner's catalogue; it has {', '.join(MACHINES)}")
    return found


def _shape(config: Mapping[str, Any], folder: Path) -> Shape:
    model = config["model"]
    if model["architecture"] is not None:
        return shape_from(model["architecture"], _vocabulary(config["data"]["tokenizer"], folder))
    if model["path"] is None:
        raise CannotPlan("spec.resume.run gives the model, whose sizes are not known here; give --params")
    path = folder / model["path"] / "config.json"
    try:
        sizes = json.loads(path.read_text(encoding="utf-8"))
        return shape_from(sizes, int(sizes["vocab_size"]))
    except (OSError, ValueError, KeyError) as error:
        raise CannotPlan(
            f"config.model.path={model['path']}: its sizes cannot be read here ({error}); give --params"
        ) from error


def _vocabulary(tokenizer: Mapping[str, Any], folder: Path) -> int:
    if tokenizer["vocab_size"] is not None:
        return int(tokenizer["vocab_size"])
    try:
        text = (folder / tokenizer["path"] / "tokenizer.json").read_text(encoding="utf-8")
        return len(json.loads(text)["model"]["vocab"])
    except (OSError, ValueError, KeyError) as error:
        raise CannotPlan(
            f"config.data.tokenizer.path={tokenizer['path']}: its vocabulary cannot be read here ({error}); "
            "give --params"
        ) from error


def shape_from(sizes: Mapping[str, Any], vocabulary: int) -> Shape:
    """From transformers' words. Raises KeyError."""
    heads = int(sizes["num_attention_heads"])
    return Shape(
        hidden=int(sizes["hidden_size"]),
        intermediate=int(sizes["intermediate_size"]),
        layers=int(sizes["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(sizes.get("num_key_value_heads") or heads),
        vocabulary=vocabulary,
        is_tied=bool(sizes.get("tie_word_embeddings", False)),
    )
