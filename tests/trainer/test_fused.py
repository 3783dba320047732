"""Fused norms, rotary positions, MLPs and adapters against those of transformers and peft, which they stand in for."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own name
from trainrun_api.train_config import LoraConfig
from trainrun_trainer import fused, fused_linear
from trainrun_trainer.adapters import add_adapters
from trainrun_trainer.attention import register
from trainrun_trainer.families import FAMILIES
from trainrun_trainer.model import forward
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, MistralConfig, MistralForCausalLM
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral

from tests.trainer.models import VOCAB, tiny
from tests.trainer.runs import TINY

CPU = torch.device("cpu")
LENGTHS = [9, 1, 22]
GROUPED = {**TINY, "num_key_value_heads": 2, "vocab_size": VOCAB}

ORIGINALS = {modeling: modeling.apply_rotary_pos_emb for modeling in (modeling_llama, modeling_mistral)}
"""As they are when tests are collected: later another test of this process may have fused."""


@pytest.fixture(autouse=True)
def unfused(monkeypatch: pytest.MonkeyPatch) -> None:
    """And this one does not for those after it."""
    for modeling, original in ORIGINALS.items():
        monkeypatch.setattr(modeling, "apply_rotary_pos_emb", original)


def model_of(kind: str) -> Any:
    """Random weights, norms included, in training mode; fewer keys than queries."""
    torch.manual_seed(3)
    mistral = MistralConfig(**GROUPED, sliding_window=None)
    model = tiny(3, num_key_value_heads=2) if kind == "llama" else MistralForCausalLM(mistral)
    register()
    model.set_attn_implementation(FAMILIES[kind].attention)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.normal_(1.0, 0.3)
    return model.train()


def loss_and_gradients(model: Any, autocast: bool = False) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Of two rows of three documents each."""
    tokens = (torch.arange(2 * sum(LENGTHS)) * 7 % VOCAB).view(2, -1)
    places = torch.cat([torch.arange(length) for length in LENGTHS]).expand(2, -1)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = forward(model, tokens, places)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), tokens.roll(-1, 1).flatten())
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["llama", "mistral"])
@pytest.mark.parametrize(("autocast", "tolerance"), [(False, 2e-6), (True, 3e-2)], ids=["fp32", "bf16"])
def test_results_are_those_of_transformers(kind: str, autocast: bool, tolerance: float) -> None:
    """Loss and every gradient, relative to its largest number."""
    plain = model_of(kind)
    other = copy.deepcopy(plain)
    loss, gradients = loss_and_gradients(plain, autocast)
    assert fused.fuse(other, CPU)
    assert sys.modules[type(other).__module__].apply_rotary_pos_emb is fused.rotate  # type: ignore[attr-defined]
    fused_loss, found = loss_and_gradients(other, autocast)
    torch.testing.assert_close(fused_loss, loss, rtol=tolerance, atol=0)
    assert_near(found, gradients, 10 * tolerance)


def assert_near(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], tolerance: float) -> None:
    """Every gradient, relative to its largest number."""
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        worst = float((found[name] - gradient).abs().max() / gradient.abs().max())
        assert worst <= tolerance, name


def with_adapters(model: Any, **settings: Any) -> Any:
    """As after some steps: nothing of them is zero any more."""
    add_adapters(model, LoraConfig(r=4, **settings), "base", 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return model


@pytest.mark.parametrize(("autocast", "tolerance"), [(False, 2e-6), (True, 3e-2)], ids=["fp32", "bf16"])
@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["o_proj", "up_proj"]], ids=["attention", "mlp"])
def test_adapters_are_those_of_peft(autocast: bool, tolerance: float, targets: list[str]) -> None:
    """Loss and gradients of what is trained; an MLP with an adapter in it is peft's and transformers' otherwise."""
    plain = with_adapters(model_of("llama"), target_modules=targets)
    other = copy.deepcopy(plain)
    loss, gradients = loss_and_gradients(plain, autocast)
    assert fused.fuse(other, CPU)
    layer = other.model.layers[0]
    assert ("forward" in vars(layer.mlp)) is ("up_proj" not in targets)
    assert all("forward" in vars(layer.get_submodule(found)) for found in adapted(layer))
    fused_loss, found = loss_and_gradients(other, autocast)
    torch.testing.assert_close(fused_loss, loss, rtol=tolerance, atol=0)
    assert_near(found, gradients, 10 * tolerance)
    assert set(found) == {name for name, _ in other.named_parameters() if "lora_" in name}


def adapted(module: Any) -> list[str]:
    return [name for name, one in module.named_modules() if hasattr(one, "lora_variant")]


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"dropout": 0.5}], ids=["dora", "dropout"])
def test_dora_and_dropout_stay_with_peft(settings: dict[str, Any]) -> None:
    """Of another formula, and of random numbers."""
    model = with_adapters(model_of("llama"), **settings)
    fused.fuse(model, CPU)
    assert all("forward" not in vars(model.get_submodule(name)) for name in adapted(model))


def test_an_adapter_of_another_family_is_fused_with_its_bias() -> None:
    """One projection of queries, keys and values."""
    torch.manual_seed(3)
    neox = GPTNeoXConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48, vocab_size=VOCAB
    )
    plain = GPTNeoXForCausalLM(neox).train()
    plain.set_attn_implementation(FAMILIES["gpt_neox"].attention)
    with torch.no_grad():
        plain.gpt_neox.layers[0].attention.query_key_value.bias.normal_()
    other = with_adapters(copy.deepcopy(plain))
    plain = with_adapters(plain)
    loss, gradients = loss_and_gradients(plain)
    assert fused.fuse(other, CPU)
    fused_loss, found = loss_and_gradients(other)
    torch.testing.assert_close(fused_loss, loss, rtol=2e-6, atol=0)
    assert_near(found, gradients, 2e-5)


def test_other_mlps_stay_with_transformers() -> None:
    """A bias or another activation."""
    for settings in ({"mlp_bias": True}, {"hidden_act": "gelu"}):
        assert not fused_linear.fuse_mlp(tiny(3, **settings).model.layers[0].mlp)


def test_gradients_are_those_of_the_formula() -> None:
    """Difference quotients in double precision; the norm's own class has no other path than fp32."""
    x = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *of: fused._Normed.apply(*of, 1e-6), (x, weight))
    angles = torch.rand(2, 1, 3, 4, dtype=torch.float64)
    heads = torch.randn(2, 2, 3, 8, dtype=torch.float64, requires_grad=True)
    cos = torch.cat([angles.cos(), angles.cos()], -1)
    assert torch.autograd.gradcheck(lambda of: fused._Rotated.apply(of, cos, angles.sin()), heads)


def test_gradients_of_products_are_those_of_their_formulas() -> None:
    """Difference quotients in double precision, all inputs trained, and for adapters also none but theirs."""

    def numbers(*shape: int, trained: bool = True) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=trained)

    double = torch.float64
    weights = numbers(5, 4), numbers(5, 4), numbers(4, 5)
    assert torch.autograd.gradcheck(lambda *of: fused_linear._Gated.apply(*of, double), (numbers(2, 3, 4), *weights))
    frozen = numbers(5, 4, trained=False), numbers(5, trained=False)
    for is_first in (False, True):
        inputs = (numbers(2, 3, 4, trained=not is_first), *frozen, numbers(2, 4), numbers(5, 2))
        assert torch.autograd.gradcheck(lambda *of: fused_linear._Adapted.apply(*of, 0.7, double), inputs)


def test_frozen_norms_get_no_gradient() -> None:
    """Of a run with adapters."""
    model = model_of("llama")
    fused.fuse(model, CPU)
    model.requires_grad_(False)
    model.model.layers[0].self_attn.q_proj.weight.requires_grad_(True)
    _, found = loss_and_gradients(model)
    assert list(found) == ["model.layers.0.self_attn.q_proj.weight"]


def test_other_precisions_go_the_models_own_way() -> None:
    """A norm of bf16 has its own rounding between the steps."""
    module = model_of("llama").model.norm
    hidden = torch.randn(2, 3, 64).bfloat16()
    assert torch.equal(fused.normalize(module, hidden), module(hidden))


def test_what_has_no_such_norm_and_other_devices_are_left_alone() -> None:
    """Their devices have kernels for it; layer norms are one operation already."""
    model = model_of("llama")
    before = modeling_llama.apply_rotary_pos_emb
    assert not fused.fuse(model, torch.device("meta"))
    assert modeling_llama.apply_rotary_pos_emb is before and "forward" not in vars(model.model.norm)
    assert {name for name, family in FAMILIES.items() if family.fused} == {"llama", "mistral"}


def test_names_of_tensors_stay() -> None:
    """A checkpoint does not tell whether its trainer fused."""
    model = model_of("mistral")
    names = list(model.state_dict())
    fused.fuse(model, CPU)
    assert list(model.state_dict()) == names
