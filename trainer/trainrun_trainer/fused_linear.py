"""The gated MLP of Llama and Mistral, and a projection with an adapter: one function each, with its own backward pass.

Written as single operations, every result in between is kept and every gradient is a new tensor, sums included. Here
sums are the accumulators of matrix products, and gradients take the places of what is not needed any more. Matrix
products are in the precision of autocast, as they would be without this; only last bits differ.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name
from torch import nn

SILU_BACKWARD = torch.ops.aten.silu_backward


def fuse_mlp(module: Any) -> bool:
    """Let a gated MLP be computed here, unless it has biases, adapters or another activation."""
    projections = (module.gate_proj, module.up_proj, module.down_proj)
    is_plain = all(type(one) is nn.Linear and one.bias is None for one in projections)
    if not is_plain or module.config.hidden_act != "silu":
        return False
    module.forward = partial(_mlp, module)
    return True


def fuse_adapter(module: Any) -> bool:
    """Let a projection with an adapter of peft be computed here, unless it is DoRA's or has dropout."""
    (adapter,) = module.active_adapters
    if adapter in module.lora_variant or not isinstance(module.lora_dropout[adapter], nn.Identity):
        return False
    module.forward = partial(_adapted, module, adapter)
    return True


def _mlp(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    weights = (module.gate_proj.weight, module.up_proj.weight, module.down_proj.weight)
    result: torch.Tensor = _Gated.apply(hidden, *weights, _compute_dtype(hidden))  # type: ignore[no-untyped-call]
    return result


def _adapted(module: Any, adapter: str, hidden: torch.Tensor) -> torch.Tensor:
    base, down, up = module.base_layer, module.lora_A[adapter], module.lora_B[adapter]
    frozen, scaling, dtype = (base.weight, base.bias), module.scaling[adapter], _compute_dtype(hidden)
    result: torch.Tensor = _Adapted.apply(hidden, *frozen, down.weight, up.weight, scaling, dtype)  # type: ignore[no-untyped-call]
    return result


def _compute_dtype(hidden: torch.Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


class _Gated(torch.autograd.Function):
    """down(silu(gate(x)) * up(x))."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, down: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        ctx.dtypes = x.dtype, gate.dtype
        flat, gate, up, down = (part.to(dtype) for part in (x.flatten(0, -2), gate, up, down))
        gated, raised = flat @ gate.t(), flat @ up.t()
        product = F.silu(gated).mul_(raised)
        is_trained = any(ctx.needs_input_grad[1:4])
        ctx.save_for_backward(flat, gated, raised, product if is_trained else None, gate, up, down)
        return (product @ down.t()).view(*x.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, gated, raised, product, gate, up, down = ctx.saved_tensors
        of_x, of_gate, of_up, of_down, _ = ctx.needs_input_grad
        dtype, weight_dtype = ctx.dtypes
        gradients = gradient.flatten(0, -2)
        of_product = gradients @ down
        of_raised = F.silu(gated).mul_(of_product)
        of_gated = SILU_BACKWARD(of_product.mul_(raised), gated)
        return (
            _sum_of_products(of_gated, gate, of_raised, up, dtype).view_as(gradient) if of_x else None,
            (of_gated.t() @ flat).to(weight_dtype) if of_gate else None,
            (of_raised.t() @ flat).to(weight_dtype) if of_up else None,
            (gradients.t() @ product).to(weight_dtype) if of_down else None,
            None,
        )


class _Adapted(torch.autograd.Function):
    """x W' + b + scaling x A' B', of which only A and B are trained."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, down: torch.Tensor,
        up: torch.Tensor, scaling: float, dtype: torch.dtype,
    ) -> torch.Tensor:  # fmt: skip
        ctx.facts = scaling, x.dtype, down.dtype
        flat, weight, down, up = (part.to(dtype) for part in (x.flatten(0, -2), weight, down, up))
        low = flat @ down.t()
        ctx.save_for_backward(flat, weight, low, down, up)
        whole = F.linear(flat, weight, None if bias is None else bias.to(dtype))
        return whole.addmm_(low, up.t(), alpha=scaling).view(*x.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, weight, low, down, up = ctx.saved_tensors
        scaling, dtype, adapter_dtype = ctx.facts
        gradients = gradient.flatten(0, -2)
        of_low = (gradients @ up).mul_(scaling)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = _sum_of_products(gradients, weight, of_low, down, dtype).view(*gradient.shape[:-1], -1)
        of_down = (of_low.t() @ flat).to(adapter_dtype)
        of_up = (gradients.t() @ low).mul_(scaling).to(adapter_dtype)
        return of_x, None, None, of_down, of_up, None, None


def _sum_of_products(
    a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """a b + c d. Where products are rounded to less than `dtype`, their sum is not."""
    first = a @ b
    if first.dtype == dtype:
        return first.addmm_(c, d)
    return first.to(dtype).add_(c @ d)
