"""Norm and rotary positions of Llama and Mistral on a CPU, each one function with a backward pass of its own.

transformers writes them as five to ten operations, of which autograd keeps and walks every result; slices that it takes
of queries and keys become whole tensors of zeros on the way back. The formulas are the same, in fp32; only last bits
differ. MLPs and adapters are in fused_linear.py. Other devices have kernels for all of it.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from torch import nn

from trainrun_trainer.families import FAMILIES
from trainrun_trainer.fused_linear import fuse_adapter, fuse_mlp


def fuse(model: Any, device: torch.device) -> bool:
    """Let what there is of this model's norms, MLPs and adapters be computed here, and with the norms its family's
    rotary positions in this process. False: nothing was changed, and on other devices nothing ever is.
    """
    if device.type != "cpu":
        return False
    prefix = FAMILIES[model.config.model_type].fused
    changed = []
    for module in model.modules():
        kind = type(module).__name__
        if hasattr(module, "lora_variant") and isinstance(module.base_layer, nn.Linear):
            changed.append(fuse_adapter(module))
        elif kind == f"{prefix}MLP":
            changed.append(fuse_mlp(module))
        elif kind == f"{prefix}RMSNorm":
            module.forward = partial(normalize, module)
            sys.modules[type(module).__module__].apply_rotary_pos_emb = rotate  # type: ignore[attr-defined]
            changed.append(True)
    return any(changed)


def normalize(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    """In the place of an RMSNorm's `forward`: hidden [..., size] -> the same."""
    if hidden.dtype != torch.float32:
        whole: torch.Tensor = type(module).forward(module, hidden)
        return whole
    normed: torch.Tensor = _Normed.apply(hidden, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    return normed


def rotate(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """In the place of transformers' `apply_rotary_pos_emb`.

    Queries and keys [rows, heads, tokens, size]; cos and sin [rows, tokens, size], whose halves are equal.
    """
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin[..., : sin.shape[-1] // 2].unsqueeze(unsqueeze_dim)
    return _Rotated.apply(q, cos, sin), _Rotated.apply(k, cos, sin)  # type: ignore[no-untyped-call]


class _Normed(torch.autograd.Function):
    """weight * x / sqrt(mean(x^2) + epsilon), of which only x and one number for each token are kept."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return torch.mul(x, scale).mul_(weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        x, weight, scale = ctx.saved_tensors
        size = x.shape[-1]
        flat, gradients, scales = x.reshape(-1, size), gradient.reshape(-1, size), scale.reshape(-1)
        product = gradients * flat
        of_weight = torch.mv(product.t(), scales) if ctx.needs_input_grad[1] else None
        shared = torch.mv(product, weight).mul_(scales.square()).div_(-size)
        of_x = torch.mul(gradients, weight, out=product).addcmul_(flat, shared[:, None]).mul_(scales[:, None])
        return of_x.view_as(x), of_weight, None


class _Rotated(torch.autograd.Function):
    """Pairs (a, b) of the two halves turned by their position's angles; its gradient is turned back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.dtype = x.dtype
        return _turned(x.to(cos.dtype), cos, sin, 1.0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(gradient, cos, sin, -1.0).to(ctx.dtype), None, None


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, way: float) -> torch.Tensor:
    turned = x * cos
    (a, b), (c, d) = x.chunk(2, -1), turned.chunk(2, -1)
    c.addcmul_(b, sin, value=-way)
    d.addcmul_(a, sin, value=way)
    return turned
