"""A wish read from a TrainingRun: sizes, tokens, devices, machine. The run has been validated before."""

from __future__ import annotations

from pathlib import Path

from trainrun_api.stages import spec_of
from trainrun_api.train_config import LoraConfig
from trainrun_api.v1alpha1 import TrainingRunSpec

from trainrun_operator.planner.hardware import MACHINES, Machine
from trainrun_operator.planner.plan import Mesh, Wish
from trainrun_operator.planner.shapes import DEFAULT_TARGETS, Shape, nearest
from trainrun_operator.planner.sizes import CannotPlan, shape_of


def wish_from_run(
    spec: TrainingRunSpec, stage: str, folder: Path, instance: str | None = None, parameters: float | None = None
) -> Wish:
    """What this train stage asks for; `folder` is that of the run's file, `instance` and `parameters` come before its
    own. Raises CannotPlan.
    """
    own = spec_of(spec, stage)
    config = own.config
    if config is None:
        raise CannotPlan(
            "spec.command: the run brings its own program, so that model and text are not known; leave -f out and give "
            "--params, --tokens, --instance and --devices"
        )
    shape = shape_of(spec, config, folder) if parameters is None else nearest(parameters)
    machine = _machine(instance or own.workers.instance_type)
    workers = own.workers.replicas * own.workers.devices_per_worker
    return Wish(
        parameters=parameters or shape.parameters,
        tokens=float(config.total_steps * config.global_batch_rows * config.data.row_tokens),
        machine=machine,
        devices=-(-workers // machine.workers_per_device),
        shape=shape,
        is_shape_assumed=parameters is not None,
        trainable=None if config.lora is None else _trainable(config.lora, shape),
        precision=config.precision,
        is_precision_assumed=False,
        mesh=Mesh(config.parallel.dp_replicate, config.parallel.dp_shard),
        activation_checkpointing=config.activation_checkpointing,
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
