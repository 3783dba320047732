"""What one node of an instance type has: devices and EFA interfaces. Pure data.

Source of the counts: the `INSTANCE_RESOURCES` table of the sagemaker-hyperpod SDK 3.12; cores per Neuron device:
Neuron's documentation (Trainium2 with its default of two physical cores per logical one). p6e-gb200 is left out: its
sources contradict each other on EFA. A type that is not listed gets what the spec asks for and no EFA.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Instance:
    """One node."""

    accelerator: str
    devices: int
    """GPUs, or whole Neuron devices."""
    efa: int = 0
    """Network interfaces for collectives; without them NCCL silently falls back to TCP."""
    workers_per_device: int = 1
    """Logical cores of a Neuron device, each with a worker process of its own."""

    @property
    def workers(self) -> int:
        """Most worker processes that a node has devices for."""
        return self.devices * self.workers_per_device


def _gpu(devices: int, efa: int = 0) -> Instance:
    return Instance("cuda", devices, efa)


INSTANCES: Mapping[str, Instance] = {
    "ml.p4d.24xlarge": _gpu(8, 4),
    "ml.p4de.24xlarge": _gpu(8, 4),
    "ml.p5.4xlarge": _gpu(1, 1),
    "ml.p5.48xlarge": _gpu(8, 32),
    "ml.p5e.48xlarge": _gpu(8, 32),
    "ml.p5en.48xlarge": _gpu(8, 16),
    "ml.p6-b200.48xlarge": _gpu(8, 8),
    "ml.p6-b300.48xlarge": _gpu(8, 16),
    "ml.trn1.32xlarge": Instance("neuron", 16, 8, workers_per_device=2),
    "ml.trn1n.32xlarge": Instance("neuron", 16, 16, workers_per_device=2),
    "ml.trn2.3xlarge": Instance("neuron", 1, 1, workers_per_device=4),
    "ml.trn2.48xlarge": Instance("neuron", 16, 16, workers_per_device=4),
    "ml.g5.xlarge": _gpu(1),
    "ml.g5.8xlarge": _gpu(1, 1),
    "ml.g5.12xlarge": _gpu(4, 1),
    "ml.g5.48xlarge": _gpu(8, 1),
    "ml.g6.xlarge": _gpu(1),
    "ml.g6.8xlarge": _gpu(1, 1),
    "ml.g6.12xlarge": _gpu(4, 1),
    "ml.g6.48xlarge": _gpu(8, 1),
    "ml.g6e.xlarge": _gpu(1),
    "ml.g6e.8xlarge": _gpu(1, 1),
    "ml.g6e.12xlarge": _gpu(4, 1),
    "ml.g6e.24xlarge": _gpu(4, 2),
    "ml.g6e.48xlarge": _gpu(8, 4),
}


def device_resources(accelerator: str, workers: int, instance_type: str | None) -> dict[str, int]:
    """Extended resources of a pod with `workers` worker processes; requests and limits are equal."""
    instance = INSTANCES.get(instance_type or "")
    if instance is not None and instance.accelerator != accelerator:
        instance = None  # the scheduler will say that no such node has the device
    out: dict[str, int] = {}
    if accelerator == "cuda":
        out["nvidia.com/gpu"] = workers
    elif accelerator == "neuron" and instance is not None:
        out["aws.amazon.com/neuron"] = -(-workers // instance.workers_per_device)
    elif accelerator == "neuron":
        out["aws.amazon.com/neuroncore"] = workers
    if instance is not None:
        # a pod with half of the devices takes half of the interfaces: the other half belongs to its neighbour
        efa = instance.efa * min(workers, instance.workers) // instance.workers
        if efa:
            out["vpc.amazonaws.com/efa"] = efa
    return out
