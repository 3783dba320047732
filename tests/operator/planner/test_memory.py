"""What a worker process holds, against what the trainer does (its side: tests/trainer/test_planned_memory.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from trainrun_operator.planner.hardware import MACHINES
from trainrun_operator.planner.memory import Load, device_memory, fewest_shards, state_bytes
from trainrun_operator.planner.shapes import KNOWN

LLAMA_3_8B = KNOWN[2]
FULL = Load(LLAMA_3_8B, LLAMA_3_8B.parameters, None, "bf16", 4096, 8, is_accumulated=False)
ADAPTERS = replace(FULL, trainable=6_815_744.0)
H100 = MACHINES["ml.p5.48xlarge"].worker_bytes


def test_frozen_weights_are_fp32() -> None:
    """32 GB of an 8B model, not the 16 GB of trainers that load it in bf16."""
    assert state_bytes(8e9, 0.0) == 32e9
    assert state_bytes(8e9, None) == 128e9


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_layers_are_gathered_in_fp32(precision: str) -> None:
    """Two layers, and what is outside of them for the whole step: no policy casts them before."""
    load = replace(FULL, precision=precision)  # type: ignore[arg-type]
    whole = 2 * LLAMA_3_8B.layer_parameters + LLAMA_3_8B.root_parameters
    assert device_memory(load, 8, 0).gathered == 4 * whole
    assert device_memory(replace(load, workers=1), 1, 0).gathered == 0


def test_gradients_stay_whole_while_micro_batches_follow() -> None:
    """Only the last one is summed over the workers."""
    assert device_memory(replace(FULL, is_accumulated=True), 8, 0).gradients == 4 * LLAMA_3_8B.parameters
    assert device_memory(FULL, 8, 0).gradients == 4 * (LLAMA_3_8B.layer_parameters + LLAMA_3_8B.root_parameters)
    assert device_memory(replace(ADAPTERS, is_accumulated=True), 8, 0).gradients == 4 * 6_815_744
    assert device_memory(ADAPTERS, 8, 0).gradients == 4 * 6_815_744 / 32
    assert device_memory(replace(FULL, workers=1), 1, 0).gradients == 0


def test_bf16_copies_stay_until_the_backward_pass() -> None:
    """Of every layer that is not computed again; fp32 needs none."""
    head = LLAMA_3_8B.vocabulary * LLAMA_3_8B.hidden
    assert device_memory(FULL, 8, 0).copies == 2 * (32 * LLAMA_3_8B.layer_parameters + head)
    assert device_memory(FULL, 8, 32).copies == 2 * (LLAMA_3_8B.layer_parameters + head)
    assert device_memory(replace(FULL, precision="fp32"), 8, 0).copies == 0


def test_activations_of_half_of_the_layers() -> None:
    """Between all and none; fp32 keeps more."""
    none, half, full = (device_memory(FULL, 8, layers).activations for layers in (0, 16, 32))
    assert none > half > full
    assert device_memory(replace(FULL, precision="fp32"), 8, 0).activations > 1.4 * none


@pytest.mark.parametrize(
    ("load", "fewest"), [(FULL, 4), (replace(FULL, workers=3), 3), (replace(FULL, workers=2), None)]
)
def test_the_fewest_shards_divide_the_workers(load: Load, fewest: int | None) -> None:
    """So that replicas of them fill the mesh."""
    assert fewest_shards(load, H100) == fewest
