"""AdamW over the local pieces, and the tensors that a checkpoint consists of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from trainrun_api.train_config import OptimizerConfig

from trainrun_trainer.digest import Piece
from trainrun_trainer.parallel import Shard

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class NamedTensor:
    """One tensor of the training state: its name in checkpoints and this rank's piece of it."""

    name: str
    shard: Shard
    local: torch.Tensor

    def whole(self, local: torch.Tensor) -> torch.Tensor:
        """View a local piece as part of the whole tensor."""
        return self.shard.like(local)


def make_optimizer(shards: Sequence[Shard], config: OptimizerConfig) -> torch.optim.AdamW:
    """Fused AdamW; matrices decay, vectors do not. Its state exists from the start, so step 0 can be saved."""
    matrices = [s.local for s in shards if s.whole.ndim >= 2]
    vectors = [s.local for s in shards if s.whole.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True,
    )  # fmt: skip
    for shard in shards:
        local = shard.local
        optimizer.state[local] = {
            "step": torch.zeros((), dtype=torch.float32, device=local.device),
            **{moment: torch.zeros_like(local) for moment in MOMENTS},
        }
    return optimizer


def set_step(optimizer: torch.optim.AdamW, step: int) -> None:
    """Give the optimizer its step count, which is a counter of the run and not a tensor of a checkpoint."""
    for state in optimizer.state.values():
        state["step"].fill_(float(step))


def set_learning_rate(optimizer: torch.optim.AdamW, rate: float) -> None:
    """Rate of the next step, for all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def state_tensors(shards: Sequence[Shard], optimizer: torch.optim.AdamW) -> list[NamedTensor]:
    """Weights and moments, by name."""
    tensors = [NamedTensor(f"model.{s.name}", s, s.local.detach()) for s in shards]
    for s in shards:
        tensors += [NamedTensor(f"optim.{s.name}.{m}", s, optimizer.state[s.local][m]) for m in MOMENTS]
    return sorted(tensors, key=lambda t: t.name)


def digest_pieces(tensors: Sequence[NamedTensor], locals_by_name: dict[str, torch.Tensor]) -> list[Piece]:
    """This rank's rows for the state digest; of several replicas the first counts."""
    return [Piece(t.name, t.shard.first_row(), locals_by_name[t.name]) for t in tensors if t.shard.is_counted_here()]
