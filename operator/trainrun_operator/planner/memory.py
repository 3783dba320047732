"""Memory of one device, by method and sharding.

States are exact; activations are the estimate of Korthikanti et al. 2022.
Not counted: the allocator's slack and the collectives' buffers. `HEADROOM` is for them.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainrun_operator.planner.shapes import Shape

FULL_BYTES = 16.0
"""fp32 weights, gradients and the two moments of AdamW: bf16 is the precision of the computation only."""
FROZEN_BYTES = 2.0
"""A frozen model in bf16."""
LAYER_BYTES_PER_WIDTH = 34.0
"""Per token and layer, bf16, with an attention that keeps no scores."""
RECOMPUTED_BYTES_PER_WIDTH = 2.0
"""Per token and layer, when only the layer's input is kept."""
LOGIT_BYTES = 8.0
"""Per token and word of the vocabulary: fp32 logits and their gradient."""
GATHERED_BYTES = 2.0
"""Of a layer that is whole on the device while it computes, in bf16; the next one is fetched meanwhile."""
HEADROOM = 0.9
"""The share of a device's memory that a plan may fill."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    states: float
    gathered: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.states + self.gathered + self.activations + self.logits


def state_bytes(parameters: float, trainable: float | None) -> float:
    """Of the whole model; `trainable` adapter parameters beside a frozen one, or None."""
    if trainable is None:
        return FULL_BYTES * parameters
    return FROZEN_BYTES * parameters + FULL_BYTES * trainable


def device_memory(
    shape: Shape, parameters: float, trainable: float | None, shards: int, tokens: int, *, is_recomputed: bool
) -> Memory:
    """With states spread over `shards` devices and `tokens` of one micro-batch on each."""
    per_layer = tokens * shape.hidden
    kept = shape.layers * per_layer * (RECOMPUTED_BYTES_PER_WIDTH if is_recomputed else LAYER_BYTES_PER_WIDTH)
    working = per_layer * LAYER_BYTES_PER_WIDTH if is_recomputed else 0.0
    return Memory(
        states=state_bytes(parameters, trainable) / shards,
        gathered=2 * GATHERED_BYTES * shape.layer_parameters if shards > 1 else 0.0,
        activations=kept + working,
        logits=LOGIT_BYTES * tokens * shape.vocabulary,
    )


def fewest_shards(
    shape: Shape, parameters: float, trainable: float | None, tokens: int, memory_bytes: int, *, most: int
) -> int | None:
    """The smallest power of two of devices over which the states fit, layers recomputed; None if `most` are too few."""
    shards = 1
    while shards <= most:
        need = device_memory(shape, parameters, trainable, shards, tokens, is_recomputed=True)
        if need.total <= HEADROOM * memory_bytes:
            return shards
        shards *= 2
    return None
