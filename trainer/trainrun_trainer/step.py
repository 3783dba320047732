"""One optimizer step's arithmetic: slots to summed gradients, agreement of all ranks, clip.

Slots are numbered over the global batch, whatever the ranks; every random draw is seeded by
(seed, step, slot); the loss is the sum over valid tokens divided by the valid tokens of the *global* batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainrun_trainer import device as devices
from trainrun_trainer.loss import loss_sum
from trainrun_trainer.model import predict
from trainrun_trainer.order import mix
from trainrun_trainer.parallel import Shard, sync_gradients
from trainrun_trainer.ranks import Ranks
from trainrun_trainer.rows import U64_MASK, Slot

LIMB_BITS = 16
"""64-bit sums travel as four limbs in float64: exact up to 2^37 ranks."""


@dataclass(frozen=True)
class Agreement:
    """What all ranks know after the step's one small all-reduce; equal everywhere."""

    loss: float
    grad_norm: float
    rows_sum: int
    save_now: bool
    stop_code: int | None

    @property
    def is_finite(self) -> bool:
        """May the weights be changed with these gradients?"""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


def reduce_gradients(
    model: Any, step: int, slots: Sequence[tuple[int, Slot]], num_targets: int, seed: int, precision: str
) -> torch.Tensor:
    """Forward and backward over this rank's slots; gradients end up summed over all slots of all ranks.

    Returns this rank's part of the loss, not yet synchronised with the host. The order of summation is
    the slots' order within a rank, then the collective's; a fixed tree would take this function's place.
    """
    losses = []
    for number, slot in slots:
        sync_gradients(model, is_last=number == slots[-1][0])
        torch.manual_seed(mix(seed, 3, step, number) >> 1)
        losses.append(slot_backward(model, slot, num_targets, precision))
    return torch.stack(losses).double().sum()


def slot_backward(model: Any, slot: Slot, num_targets: int, precision: str) -> torch.Tensor:
    """One micro-batch: its share of the loss, with gradients added to the parameters'."""
    with devices.compute_dtype(slot.input_ids.device, precision):
        logits, targets = predict(model, slot)
    loss = loss_sum(logits, targets) / num_targets
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def agree(
    ranks: Ranks,
    shards: Sequence[Shard],
    gradients: Sequence[torch.Tensor],
    local_loss: torch.Tensor,
    rows_sum: int,
    save_now: bool,
    stop_code: int | None,
) -> Agreement:
    """The step's one small all-reduce: loss, gradient norm, rows read, save and stop flags."""
    counted = [g for s, g in zip(shards, gradients, strict=True) if s.is_counted_here() and g.numel()]
    norms = torch._foreach_norm(counted) if counted else [torch.zeros((), device=ranks.device)]
    on_device = torch.stack([local_loss, torch.stack(norms).double().square().sum()])
    limbs = [float(rows_sum >> (LIMB_BITS * i) & 0xFFFF) for i in range(4)]
    total = ranks.sum([*limbs, float(save_now), float(stop_code == 10), float(stop_code == 11)], on_device)
    whole = sum(int(limb) << (LIMB_BITS * i) for i, limb in enumerate(total[2:6])) & U64_MASK
    stop = 10 if total[7] else 11 if total[8] else None
    norm = math.sqrt(total[1]) if total[1] >= 0 else math.nan
    return Agreement(total[0], norm, whole, bool(total[6]), stop)


def clip(gradients: Sequence[torch.Tensor], grad_norm: float, limit: float) -> None:
    """Scale gradients down to the limit, with the agreed norm."""
    if grad_norm > limit:
        torch._foreach_mul_(list(gradients), limit / grad_norm)
