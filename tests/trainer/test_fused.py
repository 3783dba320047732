"""Fused norms and rotary positions against transformers' own, which they stand in for."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own name
from trainrun_trainer import fused
from trainrun_trainer.attention import register
from trainrun_trainer.families import FAMILIES
from trainrun_trainer.model import forward
from transformers import MistralConfig, MistralForCausalLM
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
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        worst = float((found[name] - gradient).abs().max() / gradient.abs().max())
        assert worst <= 10 * tolerance, name


def test_gradients_are_those_of_the_formula() -> None:
    """Difference quotients in double precision; the norm's own class has no other path than fp32."""
    x = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *of: fused._Normed.apply(*of, 1e-6), (x, weight))
    angles = torch.rand(2, 1, 3, 4, dtype=torch.float64)
    heads = torch.randn(2, 2, 3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda of: fused._Rotated.apply(of, angles.cos(), angles.sin()), heads)


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
    assert {name for name, family in FAMILIES.items() if family.rms_norm} == {"llama", "mistral"}


def test_names_of_tensors_stay() -> None:
    """A checkpoint does not tell whether its trainer fused."""
    model = model_of("mistral")
    names = list(model.state_dict())
    fused.fuse(model, CPU)
    assert list(model.state_dict()) == names
