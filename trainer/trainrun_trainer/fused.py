"""Norm and rotary positions of Llama and Mistral on a CPU, each one function with a backward pass of its own.

transformers writes them as five to ten operations, of which autograd keeps and walks every result; slices that it takes
of queries and keys become whole tensors of zeros on the way back. The formulas are the same, in fp32; only last bits
differ. Other devices have kernels for both.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch

from trainrun_trainer.families import FAMILIES


def fuse(model: Any, device: torch.device) -> bool:
    """Let this model's norms, and the rotary positions of its family in this process, be computed here.

    False: the family has no such norm, or the device is no CPU, and nothing was changed.
    """
    wanted = FAMILIES[model.config.model_type].rms_norm
    norms = [module for module in model.modules() if type(module).__name__ == wanted]
    if device.type != "cpu" or not norms:
        return False
    for module in norms:
        module.forward = partial(normalize, module)
    sys.modules[type(norms[0]).__module__].apply_rotary_pos_emb = rotate  # type: ignore[attr-defined]
    return True


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
    half = cos.shape[-1] // 2
    cos, sin = (part[..., :half].unsqueeze(unsqueeze_dim) for part in (cos, sin))
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
        shared = torch.mv(product, weight).mul_(scales.pow(3)).div_(-size)
        of_x = torch.mul(gradients, weight).mul_(scales[:, None]).addcmul_(flat, shared[:, None])
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
    turned = torch.empty_like(x)
    (a, b), (c, d) = x.chunk(2, -1), turned.chunk(2, -1)
    torch.mul(a, cos, out=c).addcmul_(b, sin, value=-way)
    torch.mul(b, cos, out=d).addcmul_(a, sin, value=way)
    return turned
