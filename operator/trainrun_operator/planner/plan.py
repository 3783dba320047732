"""One plan: everything that follows from a wish."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainrun_api.data_config import ROW_TOKENS

from trainrun_operator.planner import compute, faults
from trainrun_operator.planner.hardware import Machine, Precision, Price
from trainrun_operator.planner.memory import Load, Memory, device_memory, fewest_shards, fits
from trainrun_operator.planner.rates import Utilisation, expected_utilisation
from trainrun_operator.planner.shapes import Shape

SAVED_BYTES = 12.0
"""Of a checkpoint, per trained parameter: fp32 weights and AdamW's two moments."""
NODE_STORE_BYTES_PER_SECOND = 1e9
"""Assumed of each node towards a shared file system or an object store."""


@dataclass(frozen=True)
class Mesh:
    """config.parallel of a run: its worker processes in replicas, each of which shares one copy of the states."""

    dp_replicate: int = 1
    dp_shard: int | None = None
    """None: all that the replicas leave."""

    def shards(self, workers: int) -> int | None:
        """That share one copy; None: so many workers do not fill the mesh."""
        shards = workers // self.dp_replicate if self.dp_shard is None else self.dp_shard
        return shards if shards * self.dp_replicate == workers else None


@dataclass(frozen=True)
class Wish:
    """What is to be trained, and on what."""

    parameters: float
    tokens: float
    machine: Machine
    devices: int
    shape: Shape
    is_shape_assumed: bool = True
    """Only the size is known; the shape is that of a known model of about this size."""
    trainable: float | None = None
    """Of LoRA's adapters; None: all parameters are trained."""
    precision: Precision = "bf16"
    is_precision_assumed: bool = True
    """Nobody has said it."""
    mesh: Mesh | None = None
    """That fills the workers; None: states are to be shared by as few as they fit on."""
    activation_checkpointing: str | None = None
    """Words of the configuration; None: nobody has said it, and both ways are planned."""
    within_days: float | None = None
    """The run must take so long: what utilisation would that be?"""
    utilisation: float | None = None
    """Known better by the one who asks."""
    price: Price | None = None
    row_tokens: int = ROW_TOKENS
    micro_batch_rows: int = 1
    global_batch_rows: int | None = None
    store_bytes_per_second: float | None = None
    """Of all nodes together."""
    failures_per_1000_node_days: float = faults.FAILURES_PER_1000_NODE_DAYS

    @property
    def workers(self) -> int:
        """Worker processes."""
        return self.devices * self.machine.workers_per_device

    @property
    def recomputed_layers(self) -> int:
        """By activation_checkpointing: none, full, every 2, every 3 ..."""
        setting = self.activation_checkpointing or "none"
        if setting == "none":
            return 0
        return self.shape.layers // (1 if setting == "full" else int(setting.removeprefix("every ")))

    @property
    def load(self) -> Load:
        """What a worker holds and computes."""
        rows = self.global_batch_rows
        return Load(
            self.shape, self.parameters, self.trainable, self.precision, self.row_tokens * self.micro_batch_rows,
            self.workers, is_accumulated=rows is not None and rows > self.micro_batch_rows * self.workers,
        )  # fmt: skip


@dataclass(frozen=True)
class Saving:
    """Checkpoints of this run."""

    size_bytes: float
    seconds: float
    """For which a save that blocks would stop the training."""
    interval_seconds: float
    bytes_per_second: float
    """What the store must take to be done within a minute."""


@dataclass(frozen=True)
class Plan:
    """The answer."""

    wish: Wish
    flops: float
    utilisation: Utilisation
    days: float
    """Without faults."""
    nodes: int
    cost_usd: float | None
    shards: int | None
    """Workers that share one copy of the states: of the mesh, or the fewest. None: all of them are too few."""
    fewest_shards: int | None
    """On which it fits; None: all of them are too few."""
    memory: Memory
    """Of a worker with that sharding, activations kept as the run says."""
    recomputed: Memory
    """The same, activations recomputed."""
    saving: Saving
    hours_between_faults: float
    ettr: float
    spares: int

    @property
    def is_too_big(self) -> bool:
        """For the memory of its devices, whatever is recomputed."""
        return not fits(self.recomputed, self.wish.machine.worker_bytes)

    @property
    def device_days(self) -> float:
        """Of the run without faults."""
        return self.days * self.wish.devices

    @property
    def days_with_faults(self) -> float:
        """By the expected share of time that counts."""
        return self.days / self.ettr

    @property
    def faults(self) -> float:
        """To be expected during the run."""
        return self.days_with_faults * 24.0 / self.hours_between_faults

    @property
    def steps(self) -> int | None:
        """Optimizer steps, if the batch is known; the last one may be short."""
        rows = self.wish.global_batch_rows
        return None if rows is None else steps(self.wish.tokens / self.wish.row_tokens, rows)


def steps(rows: float, global_batch_rows: int) -> int:
    """That see every row once."""
    return math.ceil(rows / global_batch_rows)


def make_plan(wish: Wish) -> Plan:
    """All of it."""
    peak = wish.machine.chip.peak(wish.precision)
    flops = compute.training_flops(wish.parameters, wish.tokens, wish.trainable)
    utilisation = _utilisation(wish, flops, peak)
    days = compute.days(flops, wish.devices, peak, utilisation.share)
    nodes = -(-wish.devices // wish.machine.devices)
    load = wish.load
    fewest = fewest_shards(load, wish.machine.worker_bytes)
    shards = fewest if wish.mesh is None else wish.mesh.shards(wish.workers)
    over = shards or wish.workers
    hours = faults.mean_hours_between_faults(nodes, wish.failures_per_1000_node_days)
    saving, ettr = _saving(wish, nodes, hours * 3600.0)
    price = wish.price or wish.machine.price
    return Plan(
        wish=wish, flops=flops, utilisation=utilisation, days=days, nodes=nodes,
        cost_usd=None if price is None else days / ettr * 24.0 * nodes * price.usd_per_hour,
        shards=shards, fewest_shards=fewest,
        memory=device_memory(load, over, wish.recomputed_layers),
        recomputed=device_memory(load, over, wish.shape.layers),
        saving=saving, hours_between_faults=hours, ettr=ettr,
        spares=faults.spares(nodes, rate=wish.failures_per_1000_node_days),
    )  # fmt: skip


def _utilisation(wish: Wish, flops: float, peak: float) -> Utilisation:
    if wish.within_days is not None:
        share = compute.utilisation_of(flops, wish.devices, peak, wish.within_days)
        return Utilisation(share, f"what {wish.within_days:g} days would need", False)
    if wish.utilisation is not None:
        return Utilisation(wish.utilisation, "as given", False)
    return expected_utilisation(wish.machine.chip, wish.parameters, wish.precision)


def _saving(wish: Wish, nodes: int, mean_seconds: float) -> tuple[Saving, float]:
    trained = wish.parameters if wish.trainable is None else wish.trainable
    size = SAVED_BYTES * trained
    rate = wish.store_bytes_per_second or nodes * NODE_STORE_BYTES_PER_SECOND
    best = faults.best_interval(mean_seconds, size / rate)
    return Saving(size, size / rate, best.seconds, size / 60.0), best.ettr
