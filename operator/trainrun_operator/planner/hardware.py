"""Chips and machines: peak rates, memory and prices, each with its source. How many devices a machine has is in
`core/instances.py`, which the operator uses for the same purpose.

Peaks are dense, one for each `config.precision`: of fp32 it is that without TF32, which the trainer never turns on. A
price is per machine and hour, and says what kind of price it is: on demand differs from a
reservation by a factor of two, and all of them change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from trainrun_operator.core.instances import INSTANCES

GIB = 1 << 30

Precision = Literal["fp32", "bf16"]
"""Words of config.precision."""


@dataclass(frozen=True)
class Chip:
    """One device as the scheduler counts it: a GPU, or a whole Neuron device."""

    name: str
    peak_flops: float
    """Dense bf16 operations a second."""
    fp32_flops: float
    """Operations a second in fp32: of a GPU without its matrix units."""
    memory_bytes: int
    source: str

    def peak(self, precision: Precision) -> float:
        """Operations a second."""
        return self.peak_flops if precision == "bf16" else self.fp32_flops


A100_40 = Chip("A100 40 GB", 312e12, 19.5e12, 40 * GIB, "NVIDIA A100 data sheet")
A100_80 = Chip("A100 80 GB", 312e12, 19.5e12, 80 * GIB, "NVIDIA A100 data sheet")
H100 = Chip("H100 80 GB", 989e12, 67e12, 80 * GIB, "NVIDIA H100 data sheet (SXM)")
H200 = Chip("H200 141 GB", 989e12, 67e12, 141 * GIB, "NVIDIA H200 data sheet (SXM)")
B200 = Chip("B200 180 GB", 2250e12, 75e12, 180 * GIB, "NVIDIA HGX B200 data sheet")
B300 = Chip("B300 270 GB", 2250e12, 75e12, 270 * GIB, "NVIDIA HGX B300 data sheet")
TRAINIUM1 = Chip("Trainium 1", 190e12, 47.5e12, 32 * GIB, "AWS Neuron documentation, Trainium architecture")
TRAINIUM2 = Chip("Trainium 2", 667e12, 181e12, 96 * GIB, "AWS Neuron documentation 2.29, Trainium2 architecture")


@dataclass(frozen=True)
class Price:
    """US dollars for one machine and hour."""

    usd_per_hour: float
    source: str


@dataclass(frozen=True)
class Machine:
    """One instance type of the catalogue."""

    instance_type: str
    chip: Chip
    devices: int
    price: Price | None = None
    workers_per_device: int = 1
    """Worker processes that share a device and its memory: logical cores of a Neuron device."""

    @property
    def worker_bytes(self) -> float:
        """Of the device's memory, for each worker process."""
        return self.chip.memory_bytes / self.workers_per_device


_BLOCKS = "EC2 Capacity Blocks, the cheapest region, prices that were valid until 2025-01-01"
_PRICES: Mapping[str, Price] = {
    "ml.p4d.24xlarge": Price(14.75, _BLOCKS),
    "ml.p5.48xlarge": Price(39.33, _BLOCKS),
    "ml.p5e.48xlarge": Price(43.26, _BLOCKS),
    "ml.trn1.32xlarge": Price(21.50, "on demand, as optimum-neuron's tutorial 0.4 quotes it"),
}
_CHIPS: Mapping[str, Chip] = {
    "ml.p4d.24xlarge": A100_40,
    "ml.p4de.24xlarge": A100_80,
    "ml.p5.48xlarge": H100,
    "ml.p5e.48xlarge": H200,
    "ml.p5en.48xlarge": H200,
    "ml.p6-b200.48xlarge": B200,
    "ml.p6-b300.48xlarge": B300,
    "ml.trn1.32xlarge": TRAINIUM1,
    "ml.trn1n.32xlarge": TRAINIUM1,
    "ml.trn2.48xlarge": TRAINIUM2,
}

MACHINES: Mapping[str, Machine] = {
    name: Machine(name, chip, INSTANCES[name].devices, _PRICES.get(name), INSTANCES[name].workers_per_device)
    for name, chip in _CHIPS.items()
}
"""Those that large runs use."""
