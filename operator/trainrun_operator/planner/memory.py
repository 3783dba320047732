"""Memory of one worker process, by method, precision and sharding: what the trainer holds, not what could be done.

Weights, gradients and moments are fp32 whatever `precision` says, those of a frozen model as well. FSDP2 has no mixed
precision policy: it gathers fp32, and autocast makes a bf16 copy of each weight for its product, which autograd keeps
unless the layer is computed again. tests/trainer/test_planned_memory.py holds the figures against the trainer.
Not counted: the mask of packed rows, the allocator's slack, the collectives' buffers. `HEADROOM` is for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainrun_operator.planner.hardware import Precision
from trainrun_operator.planner.shapes import Shape

FP32_BYTES = 4.0
FULL_BYTES = 4 * FP32_BYTES
"""Weights, gradients and the two moments of AdamW."""
FROZEN_BYTES = FP32_BYTES
"""Weights alone. Tables that say 2 bytes mean a trainer that loads the frozen model in bf16; ours does not."""
CAST_BYTES: Mapping[Precision, float] = {"fp32": 0.0, "bf16": 2.0}
"""Per parameter, of the copies that autocast computes with."""
KEPT_BYTES: Mapping[Precision, tuple[float, float, float]] = {"fp32": (32.0, 16.0, 8.0), "bf16": (30.0, 8.0, 4.0)}
"""Per token and layer, for the width of the model, of its MLP, and of keys and values: what autograd keeps of a Llama's
layer, with an attention that keeps no scores. With adapters on queries and values it is up to a third less."""
INPUT_BYTES = FP32_BYTES
"""Per token and width, of a layer that is computed again: only its input is kept, which is never bf16."""
LOGIT_BYTES: Mapping[Precision, float] = {"fp32": 8.0, "bf16": 10.0}
"""Per token and word of the vocabulary: logits, their fp32 copy, and the exponentials of their sum."""
GATHERED_LAYERS = 2
"""Whole on the device: the one that computes, and the next one, which is fetched meanwhile."""
HEADROOM = 0.9
"""The share of a device's memory that a plan may fill."""


@dataclass(frozen=True)
class Load:
    """What the worker processes hold and compute."""

    shape: Shape
    parameters: float
    trainable: float | None
    """Of adapters beside a frozen model; None: all are trained."""
    precision: Precision
    tokens: int
    """Of one micro-batch."""
    workers: int
    is_accumulated: bool
    """A step has several micro-batches on each worker: gradients stay whole until the last one."""

    @property
    def trained(self) -> float:
        """Parameters with gradients."""
        return self.parameters if self.trainable is None else self.trainable


@dataclass(frozen=True)
class Memory:
    """Bytes of one worker process."""

    states: float
    gathered: float
    gradients: float
    """Before they are summed over the workers and shared."""
    copies: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.states + self.gathered + self.gradients + self.copies + self.activations + self.logits


def state_bytes(parameters: float, trainable: float | None) -> float:
    """Of the whole model; `trainable` adapter parameters beside a frozen one, or None."""
    if trainable is None:
        return FULL_BYTES * parameters
    return FROZEN_BYTES * parameters + FULL_BYTES * trainable


def device_memory(load: Load, shards: int, recomputed_layers: int) -> Memory:
    """With states spread over `shards` workers; one process alone gathers nothing."""
    shape = load.shape
    kept_layers = shape.layers - recomputed_layers
    layers_alive = kept_layers + min(recomputed_layers, 1)
    inputs = recomputed_layers * INPUT_BYTES * shape.hidden
    return Memory(
        states=state_bytes(load.parameters, load.trainable) / shards,
        gathered=FP32_BYTES * (GATHERED_LAYERS * shape.layer_parameters + shape.root_parameters)
        if load.workers > 1
        else 0.0,
        gradients=FP32_BYTES * _whole_gradients(load) if load.workers > 1 else 0.0,
        copies=CAST_BYTES[load.precision] * (layers_alive * shape.layer_parameters + shape.vocabulary * shape.hidden),
        activations=load.tokens * (layers_alive * _kept_bytes(load) + inputs),
        logits=LOGIT_BYTES[load.precision] * load.tokens * shape.vocabulary,
    )


def _whole_gradients(load: Load) -> float:
    """Parameters whose gradients are whole at once: a layer's, and the embeddings' until the backward pass ends."""
    if load.is_accumulated:
        return load.trained
    if load.trainable is not None:
        return load.trainable / load.shape.layers
    return load.shape.layer_parameters + load.shape.root_parameters


def _kept_bytes(load: Load) -> float:
    hidden, intermediate, kv_hidden = KEPT_BYTES[load.precision]
    shape = load.shape
    return hidden * shape.hidden + intermediate * shape.intermediate + kv_hidden * shape.kv_hidden


def fewest_shards(load: Load, memory_bytes: float) -> int | None:
    """The smallest divisor of the workers over which it fits with all layers recomputed; None: all are too few."""
    for shards in range(1, load.workers + 1):
        if load.workers % shards == 0 and fits(device_memory(load, shards, load.shape.layers), memory_bytes):
            return shards
    return None


def fits(memory: Memory, memory_bytes: float) -> bool:
    """With some room left."""
    return memory.total <= HEADROOM * memory_bytes
