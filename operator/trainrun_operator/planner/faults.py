"""What faults cost: time between them, checkpoint interval, effective training time, spares.

Formulas: Young 1974 for the interval; the exact expectation for exponential failures for the effective training time
ratio (ETTR), of which the usual (1 - (u + d/2)/M) / (1 + w/d) is the first order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FAILURES_PER_1000_NODE_DAYS = 3.79
"""Llama 3: 419 unexpected interruptions of 2,048 nodes in 54 days (Dubey et al. 2024, table 5)."""
LOWEST_RATE, HIGHEST_RATE = 2.34, 6.50
"""Meta's two research clusters (Kokolis et al. 2024)."""
RECOVERY_SECONDS = 300.0
"""From a fault to the next step with a large model: detect, start, load. Ours is below 30 s with a tiny one."""
REPAIR_DAYS = 1.0
"""Until a replaced node works again."""
SPARE_CONFIDENCE = 0.99


@dataclass(frozen=True)
class Interval:
    """Between two checkpoints."""

    seconds: float
    ettr: float
    """Share of the time in which steps are made that count."""


def mean_hours_between_faults(nodes: int, rate: float = FAILURES_PER_1000_NODE_DAYS) -> float:
    """Of the whole job; `rate` per 1,000 node-days."""
    return 1000.0 / (rate * nodes) * 24.0


def best_interval(mean_seconds: float, save_seconds: float, recovery_seconds: float = RECOVERY_SECONDS) -> Interval:
    """Young's, with the ETTR that it gives."""
    seconds = math.sqrt(2.0 * save_seconds * mean_seconds)
    return Interval(seconds, ettr(mean_seconds, seconds, save_seconds, recovery_seconds))


def ettr(mean_seconds: float, interval_seconds: float, save_seconds: float, recovery_seconds: float) -> float:
    """Exact for faults that come at random with this mean; saving blocks the training."""
    lost = math.expm1((interval_seconds + save_seconds) / mean_seconds)
    return interval_seconds / (mean_seconds * math.exp(recovery_seconds / mean_seconds) * lost)


def spares(nodes: int, repair_days: float = REPAIR_DAYS, rate: float = FAILURES_PER_1000_NODE_DAYS) -> int:
    """So many that with 99% no more nodes are in repair at once: a binomial count."""
    share = min(1.0, rate / 1000.0 * repair_days)
    chance = (1.0 - share) ** nodes
    reached, count = chance, 0
    while reached < SPARE_CONFIDENCE and count < nodes:
        chance *= (nodes - count) / (count + 1) * share / (1.0 - share)
        count += 1
        reached += chance
    return count
