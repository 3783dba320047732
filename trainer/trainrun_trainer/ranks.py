"""The group of worker processes: what must agree is decided once and broadcast, or summed.

One process needs no process group; every call is then local.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from trainrun_trainer.device import collective_backend
from trainrun_trainer.errors import TrainerError

T = TypeVar("T")
COLLECTIVE_TIMEOUT = timedelta(hours=2)
"""Longer than preparing data or a stuck save may take; hangs are found by the run's stall limit, not by this."""


class Ranks:
    """This process among the workers of the run."""

    def __init__(self, rank: int, local_rank: int, world_size: int, device: torch.device) -> None:
        self.rank, self.local_rank, self.world_size, self.device = rank, local_rank, world_size, device

    @classmethod
    def join(cls, device: torch.device) -> Ranks:
        """Join the process group that torchelastic's environment describes."""
        rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if world_size > 1:
            dist.init_process_group(collective_backend(device), timeout=COLLECTIVE_TIMEOUT)
        return cls(rank, int(os.environ.get("LOCAL_RANK", "0")), world_size, device)

    def leave(self) -> None:
        """Leave the process group, if there is one."""
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def sum(self, values: Sequence[float], on_device: torch.Tensor | None = None) -> list[float]:
        """Sum over ranks, in float64; equal on every rank. `on_device` (float64) goes ahead of `values`.

        The device is waited for once, at the end.
        """
        vector = torch.tensor(values, dtype=torch.float64, device=self.device)
        if on_device is not None:
            vector = torch.cat([on_device, vector])
        if self.world_size > 1:
            dist.all_reduce(vector)
        summed: list[float] = vector.tolist()
        return summed

    def decide(self, decision: Callable[[], T]) -> T:
        """Run `decision` on rank 0 and give every rank its result, or its TrainerError."""
        if self.world_size == 1:
            return decision()
        box: list[Any] = [None]
        crash: BaseException | None = None
        if self.rank == 0:
            try:
                box = [(True, decision())]
            except TrainerError as error:
                box = [(False, error)]
            except BaseException as error:
                crash, box = error, [(False, RuntimeError(f"rank 0 failed: {error!r}"))]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        if crash is not None:
            raise crash
        is_result, value = box[0]
        if not is_result:
            raise value
        return value  # type: ignore[no-any-return]

    def gather(self, value: T) -> list[T]:
        """Every rank's value, by rank, on every rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.sum([0.0])
