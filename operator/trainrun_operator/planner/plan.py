"""One plan: everything that follows from a wish."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainrun_operator.planner import compute, faults
from trainrun_operator.planner.hardware import Machine, Price
from trainrun_operator.planner.memory import Memory, device_memory, fewest_shards
from trainrun_operator.planner.rates import Utilisation, expected_utilisation
from trainrun_operator.planner.shapes import Shape

SAVED_BYTES = 12.0
"""Of a checkpoint, per trained parameter: fp32 weights and AdamW's two moments."""
NODE_STORE_BYTES_PER_SECOND = 1e9
"""Assumed of each node towards a shared file system or an object store."""


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
    within_days: float | None = None
    """The run must take so long: what utilisation would that be?"""
    utilisation: float | None = None
    """Known better by the one who asks."""
    price: Price | None = None
    row_tokens: int = 4096
    micro_batch_rows: int = 1
    global_batch_rows: int | None = None
    store_bytes_per_second: float | None = None
    """Of all nodes together."""
    failures_per_1000_node_days: float = faults.FAILURES_PER_1000_NODE_DAYS


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
    """The fewest devices that share one copy of the states; None: all of them are too few."""
    memory: Memory
    """Of a device with that sharding, activations kept."""
    recomputed: Memory
    """The same, activations recomputed."""
    saving: Saving
    hours_between_faults: float
    ettr: float
    spares: int

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
    peak = wish.machine.chip.peak_flops
    flops = compute.training_flops(wish.parameters, wish.tokens, wish.trainable)
    utilisation = _utilisation(wish, flops, peak)
    days = compute.days(flops, wish.devices, peak, utilisation.share)
    nodes = -(-wish.devices // wish.machine.devices)
    tokens = wish.row_tokens * wish.micro_batch_rows
    shards = fewest_shards(
        wish.shape, wish.parameters, wish.trainable, tokens, wish.machine.chip.memory_bytes, most=wish.devices
    )
    over = shards or wish.devices
    hours = faults.mean_hours_between_faults(nodes, wish.failures_per_1000_node_days)
    saving, ettr = _saving(wish, nodes, hours * 3600.0)
    price = wish.price or wish.machine.price
    return Plan(
        wish=wish, flops=flops, utilisation=utilisation, days=days, nodes=nodes,
        cost_usd=None if price is None else days / ettr * 24.0 * nodes * price.usd_per_hour,
        shards=shards,
        memory=device_memory(wish.shape, wish.parameters, wish.trainable, over, tokens, is_recomputed=False),
        recomputed=device_memory(wish.shape, wish.parameters, wish.trainable, over, tokens, is_recomputed=True),
        saving=saving, hours_between_faults=hours, ettr=ettr,
        spares=faults.spares(nodes, rate=wish.failures_per_1000_node_days),
    )  # fmt: skip


def _utilisation(wish: Wish, flops: float, peak: float) -> Utilisation:
    if wish.within_days is not None:
        share = compute.utilisation_of(flops, wish.devices, peak, wish.within_days)
        return Utilisation(share, f"what {wish.within_days:g} days would need", False)
    if wish.utilisation is not None:
        return Utilisation(wish.utilisation, "as given", False)
    return expected_utilisation(wish.machine.chip, wish.parameters)


def _saving(wish: Wish, nodes: int, mean_seconds: float) -> tuple[Saving, float]:
    trained = wish.parameters if wish.trainable is None else wish.trainable
    size = SAVED_BYTES * trained
    rate = wish.store_bytes_per_second or nodes * NODE_STORE_BYTES_PER_SECOND
    best = faults.best_interval(mean_seconds, size / rate)
    return Saving(size, size / rate, best.seconds, size / 60.0), best.ettr
