"""What `trainrun plan` says of memory, against the trainer: its types, and what stays in memory when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from trainrun_api.train_config import Architecture, LoraConfig, ModelConfig
from trainrun_operator.planner.hardware import Precision
from trainrun_operator.planner.memory import FP32_BYTES, FROZEN_BYTES, Load, Memory, device_memory
from trainrun_operator.planner.shapes import Shape
from trainrun_trainer.adapters import add_adapters
from trainrun_trainer.device import compute_dtype
from trainrun_trainer.model import build_model, forward
from trainrun_trainer.parallel import ParallelDims, parallelize, sync_gradients
from trainrun_trainer.recompute import recompute_layers

WIDTH, MLP, VOCABULARY, TOKENS = 128, 448, 512, 512


def built(layers: int) -> Any:
    """A Llama of so many layers, as the trainer makes it for a device that has kernels for all of it."""
    sizes = Architecture(
        hidden_size=WIDTH, intermediate_size=MLP, num_hidden_layers=layers, tie_word_embeddings=False
    )  # fmt: skip
    return build_model(ModelConfig(architecture=sizes), VOCABULARY, 0, TOKENS, 0.0, 0)


def planned(layers: int, precision: Precision, recomputed: int, *, is_accumulated: bool = False) -> Memory:
    """By the planner, on two workers."""
    shape = Shape(WIDTH, MLP, layers, 4, 4, VOCABULARY)
    load = Load(shape, shape.parameters, None, precision, TOKENS, 2, is_accumulated)
    return device_memory(load, 2, recomputed)


def computed(model: Any, precision: str) -> torch.Tensor:
    """Logits of a row that is one document."""
    with compute_dtype(torch.device("cpu"), precision):
        return forward(model, torch.arange(TOKENS)[None] % VOCABULARY, torch.arange(TOKENS)[None])


def kept_bytes(layers: int, precision: str, setting: str) -> int:
    """Of what autograd keeps beside the parameters themselves."""
    model = built(layers)
    recompute_layers(model, setting)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        computed(model, precision)
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)


@pytest.mark.parametrize("setting", ["none", "full"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_a_layer_keeps(precision: Precision, setting: str) -> None:
    """Activations, and in bf16 a copy of the weights as well, if the layer is not computed again."""
    seen = kept_bytes(3, precision, setting) - kept_bytes(2, precision, setting)
    more, less = (planned(layers, precision, layers if setting == "full" else 0) for layers in (3, 2))
    assert seen == pytest.approx(more.copies + more.activations - less.copies - less.activations, rel=0.02)


def test_a_frozen_model_is_fp32() -> None:
    """As its adapters are."""
    model = built(2)
    add_adapters(model, LoraConfig(r=4), "base", 0)
    assert {parameter.element_size() for parameter in model.parameters()} == {FROZEN_BYTES}


@pytest.fixture
def sharded() -> Iterator[Any]:
    """Two layers over two ranks, of which one is here and the other answers nothing true."""
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    model = built(2)
    parallelize(model, ParallelDims(1, 2), torch.device("cpu"))
    yield model
    torch.distributed.destroy_process_group()


def test_weights_are_gathered_in_fp32(sharded: Any) -> None:
    """Of a layer while it computes, of what is outside the layers all the time; bf16 changes nothing of it."""
    whole = []

    def look(*_: Any) -> None:
        found = [p for p in sharded.parameters() if not isinstance(p, DTensor)]
        whole.append(sum(p.numel() * p.element_size() for p in found))

    sharded.model.layers[1].self_attn.register_forward_hook(look)
    computed(sharded, "bf16")
    shape = Shape(WIDTH, MLP, 2, 4, 4, VOCABULARY)
    assert whole == [FP32_BYTES * (shape.layer_parameters + shape.root_parameters)]
    assert planned(2, "bf16", 0).gathered == whole[0] + FP32_BYTES * shape.layer_parameters


def test_gradients_are_whole_until_the_last_micro_batch(sharded: Any) -> None:
    """Of all parameters, in fp32."""
    whole: dict[int, nn.Parameter] = {}

    def look(module: nn.Module, *_: Any) -> None:
        whole.update({id(p): p for p in module.parameters() if not isinstance(p, DTensor)})

    for module in (sharded.model, *sharded.model.layers, sharded.lm_head):
        module.register_forward_pre_hook(look)
    sync_gradients(sharded, is_last=False)
    computed(sharded, "bf16").float().sum().backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in whole.values() if p.grad is not None]
    seen = sum(gradient.numel() * gradient.element_size() for gradient in gradients)
    assert seen == planned(2, "bf16", 0, is_accumulated=True).gradients
