"""Which numbers of ranks can carry a training configuration: one arithmetic for the rules and for the operator."""

from __future__ import annotations

from trainrun_api.train_config import TrainConfig
from trainrun_api.v1alpha1 import TrainingRunSpec


def fills_mesh(config: TrainConfig, world: int) -> bool:
    """Whether the axes of the mesh multiply to this many ranks; a free dp_shard takes what the others leave."""
    parallel = config.parallel
    product = parallel.dp_replicate * (parallel.dp_shard or 1) * parallel.tp
    return product == world if parallel.dp_shard is not None else world % product == 0


def shares_batch(config: TrainConfig, world: int) -> bool:
    """Whether the global batch falls into equally many micro-batches for each data-parallel rank."""
    ranks = world // config.parallel.tp
    return ranks < 1 or config.global_batch_rows % (config.micro_batch_rows * ranks) == 0


def can_run_on(spec: TrainingRunSpec, replicas: int) -> bool:
    """Whether the run's configuration works with that many workers; a user's own program is its own judge."""
    world = replicas * spec.workers.devices_per_worker
    return spec.config is None or (fills_mesh(spec.config, world) and shares_batch(spec.config, world))
