"""Learning rate over steps: linear warm-up, then cosine down to a share of the peak. Pure."""

from __future__ import annotations

import math

from trainrun_api.train_config import ScheduleConfig


def learning_rate(step: int, peak: float, schedule: ScheduleConfig, total_steps: int) -> float:
    """Rate of optimizer step `step` (1-based); the last step has `peak * min_lr_ratio`."""
    if step <= schedule.warmup_steps:
        return peak * step / schedule.warmup_steps
    floor = peak * schedule.min_lr_ratio
    length = max(1, total_steps - schedule.warmup_steps)
    progress = min(1.0, (step - schedule.warmup_steps) / length)
    return floor + 0.5 * (peak - floor) * (1.0 + math.cos(math.pi * progress))
