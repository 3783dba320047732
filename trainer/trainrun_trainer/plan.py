"""Pure arithmetic of a run: batch to slots, slots to ranks, and what is due after which step."""

from __future__ import annotations

import re
from dataclasses import dataclass

from trainrun_api.train_config import TrainConfig

from trainrun_trainer.errors import ConfigError

AUTO_STEPS = 50
AUTO_SECONDS = 300.0
_DURATION = re.compile(r"^(\d+)(s|m|h)$")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class SaveInterval:
    """A checkpoint is due at multiples of `steps`, or `seconds` after the last one (rank 0's clock)."""

    steps: int | None
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    """Sizes that follow from the configuration and the number of ranks."""

    total_steps: int
    global_batch_rows: int
    micro_batch_rows: int
    world_size: int
    eval_every_steps: int | None
    save: SaveInterval

    @property
    def num_slots(self) -> int:
        """Micro-batches of a step over all ranks. Their numbers do not depend on the ranks."""
        return self.global_batch_rows // self.micro_batch_rows

    def slots_of(self, rank: int) -> range:
        """Slots that this rank computes, in order."""
        share = self.num_slots // self.world_size
        return range(rank * share, (rank + 1) * share)

    def positions_of(self, step: int, slot: int) -> range:
        """Places in the run's row sequence that make up a slot of a step (1-based)."""
        first = (step - 1) * self.global_batch_rows + slot * self.micro_batch_rows
        return range(first, first + self.micro_batch_rows)

    def is_eval_due(self, step: int) -> bool:
        """Held-out evaluation after each multiple, at step 0 and at the end."""
        every = self.eval_every_steps
        return every is not None and (step % every == 0 or step == self.total_steps)

    def is_save_due(self, step: int) -> bool:
        """A checkpoint is due by count: multiples and the end (time is asked separately)."""
        return step == self.total_steps or (self.save.steps is not None and step % self.save.steps == 0)


def make_plan(config: TrainConfig, interval: int | str, world_size: int) -> Plan:
    """Derive the plan; ConfigError if the batch does not divide."""
    rows, micro = config.global_batch_rows, config.micro_batch_rows
    if rows % micro:
        raise ConfigError(
            f"config.micro_batch_rows={micro} does not divide config.global_batch_rows={rows}; use a divisor"
        )
    if (rows // micro) % world_size:
        raise ConfigError(
            f"config.global_batch_rows={rows} in micro-batches of {micro} rows makes {rows // micro} slots, which "
            f"{world_size} workers cannot share evenly; change global_batch_rows, micro_batch_rows or the workers"
        )
    return Plan(
        config.total_steps, rows, micro, world_size,
        config.eval.every_steps if config.eval else None, parse_interval(interval),
    )  # fmt: skip


def parse_interval(interval: int | str) -> SaveInterval:
    """`auto`, a number of steps, or a duration such as 90s, 10m, 1h."""
    if interval == "auto":
        return SaveInterval(AUTO_STEPS, AUTO_SECONDS)
    if isinstance(interval, int) or interval.isdigit():
        steps = int(interval)
        if steps > 0:
            return SaveInterval(steps, None)
    elif (match := _DURATION.match(interval)) and int(match[1]) > 0:
        return SaveInterval(None, int(match[1]) * _SECONDS[match[2]])
    raise ConfigError(
        f"checkpoint.interval={interval}: expected auto, a number of steps above 0, or a duration such as 90s, 10m, 1h"
    )
