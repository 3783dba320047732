"""Cross entropy summed over valid targets, with its gradient written over the logits.

Same arithmetic as log-softmax in fp32, without keeping log-probabilities: the logits are walked in chunks
that stay in the cache, and their memory becomes their gradient's. That is a few per cent of a small model's
step, and half of the largest buffer of a model with a large vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch

from trainrun_trainer import device as devices

IGNORED = -100
"""Target of a token that predicts nothing: the last of a document's piece."""


def loss_sum(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum over targets that are not IGNORED, in fp32. The backward pass uses up `logits`."""
    flat = logits.reshape(-1, logits.shape[-1])
    summed: torch.Tensor = _SummedCrossEntropy.apply(flat, targets.reshape(-1))  # type: ignore[no-untyped-call]
    return summed


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        rows = devices.loss_chunk_rows(logits)
        is_valid = targets != IGNORED
        index = targets.clamp_min(0)[:, None]
        log_sums = torch.cat([torch.logsumexp(part.float(), 1) for part in torch.split(logits, rows)])
        picked = logits.gather(1, index)[:, 0].float()
        ctx.save_for_backward(logits, index, is_valid, log_sums)
        return torch.where(is_valid, log_sums - picked, 0.0).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, index, is_valid, log_sums = ctx.saved_tensors
        weights = (is_valid * gradient)[:, None]
        rows = devices.loss_chunk_rows(logits)
        for start in range(0, len(logits), rows):
            here = slice(start, start + rows)
            part = logits[here].float()
            part.sub_(log_sums[here, None]).exp_().mul_(weights[here])
            part.scatter_add_(1, index[here], -weights[here])
            if part.dtype != logits.dtype:
                logits[here] = part
        return logits, None
