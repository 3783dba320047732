"""Data parallel training: FSDP2 over a mesh of (dp_replicate, dp_shard); one process runs the plain module.

Gradients are *summed* over ranks: the loss is divided by the tokens of the global batch beforehand.
The optimizer and the clip work on each rank's local pieces; checkpoints see them as parts of whole tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from trainrun_api.train_config import ParallelConfig

from trainrun_trainer.errors import ConfigError
from trainrun_trainer.families import layers


@dataclass(frozen=True)
class ParallelDims:
    """Sizes of the mesh; their product is the world size."""

    dp_replicate: int
    dp_shard: int

    def as_dict(self) -> dict[str, int]:
        """For the fingerprint."""
        return {"dp_replicate": self.dp_replicate, "dp_shard": self.dp_shard}


@dataclass(frozen=True)
class Shard:
    """A trained parameter: whole as the model sees it, and this rank's piece as the optimizer sees it."""

    name: str
    whole: nn.Parameter
    local: nn.Parameter

    def like(self, local: torch.Tensor) -> torch.Tensor:
        """View a local piece as a part of a tensor that is sharded as this parameter is."""
        if not isinstance(self.whole, DTensor):
            return local
        return DTensor.from_local(
            local, self.whole.device_mesh, self.whole.placements, run_check=False,
            shape=self.whole.shape, stride=self.whole.stride(),
        )  # fmt: skip

    def first_row(self) -> int:
        """Index along dimension 0 at which the local piece starts."""
        if not isinstance(self.whole, DTensor):
            return 0
        mesh = self.whole.device_mesh
        shard_rank = mesh.get_local_rank(mesh.ndim - 1)
        per_rank = -(-self.whole.shape[0] // mesh.size(mesh.ndim - 1))
        return min(shard_rank * per_rank, self.whole.shape[0])

    def is_counted_here(self) -> bool:
        """Of several replicas of a piece, the first counts in sums and digests."""
        mesh = self.whole.device_mesh if isinstance(self.whole, DTensor) else None
        return mesh is None or mesh.ndim == 1 or mesh.get_local_rank(0) == 0


def parallel_dims(config: ParallelConfig, world_size: int) -> ParallelDims:
    """Resolve and check the mesh; ConfigError if its product is not the world size."""
    shard = config.dp_shard if config.dp_shard is not None else world_size // config.dp_replicate
    if config.tp != 1:
        raise ConfigError(f"config.parallel.tp={config.tp}: tensor parallelism is not yet available; use 1")
    if config.dp_replicate * shard != world_size:
        raise ConfigError(
            f"config.parallel: dp_replicate={config.dp_replicate} x dp_shard={shard} is not the number of workers, "
            f"{world_size}; leave dp_shard null, or make the product {world_size}"
        )
    return ParallelDims(config.dp_replicate, shard)


def parallelize(model: nn.Module, dims: ParallelDims, device: torch.device) -> list[Shard]:
    """Shard the model in place (not with one process) and return what is trained of it, in name order."""
    model.to(device)
    if dims.dp_replicate * dims.dp_shard > 1:
        mesh = _mesh(dims, device)
        for layer in layers(model):
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)  # gloo has no pre-multiplied sum
    trained = [_shard(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return sorted(trained, key=lambda shard: shard.name)


def sync_gradients(model: nn.Module, is_last: bool) -> None:
    """Sum gradients over ranks in the next backward pass only if it is the step's last."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(is_last)


def collect_gradients(shards: list[Shard]) -> list[torch.Tensor]:
    """Hand each local piece its gradient; returns the gradients."""
    gradients = []
    for shard in shards:
        whole = shard.whole.grad
        assert whole is not None, f"{shard.name} has no gradient"
        if shard.local is not shard.whole:
            shard.local.grad = whole.to_local() if isinstance(whole, DTensor) else whole
            shard.whole.grad = None
        gradients.append(shard.local.grad if shard.local.grad is not None else whole)
    return gradients


def _mesh(dims: ParallelDims, device: torch.device) -> DeviceMesh:
    if dims.dp_replicate == 1:
        return init_device_mesh(device.type, (dims.dp_shard,), mesh_dim_names=("dp_shard",))
    return init_device_mesh(
        device.type, (dims.dp_replicate, dims.dp_shard), mesh_dim_names=("dp_replicate", "dp_shard")
    )


def _shard(name: str, parameter: nn.Parameter) -> Shard:
    if not isinstance(parameter, DTensor):
        return Shard(name, parameter, parameter)
    with torch.no_grad():
        return Shard(name, parameter, nn.Parameter(parameter.to_local()))
