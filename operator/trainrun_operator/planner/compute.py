"""Tokens, operations and days: arithmetic that needs no hardware but its peak rate."""

from __future__ import annotations

from trainrun_operator.planner.rates import FLOPS_PER_TOKEN

TOKENS_PER_PARAMETER = 20.0
"""Compute-optimal: Hoffmann et al. 2022 ("Chinchilla")."""
FROZEN_FLOPS_PER_TOKEN = 4.0
"""Forward pass and the gradient of activations, without that of weights: what LoRA spends on the frozen model."""
SECONDS_PER_DAY = 86_400.0


def optimal_tokens(parameters: float) -> float:
    """For a model of this size."""
    return TOKENS_PER_PARAMETER * parameters


def optimal_parameters(tokens: float) -> float:
    """For a text of this length."""
    return tokens / TOKENS_PER_PARAMETER


def training_flops(parameters: float, tokens: float, trainable: float | None = None) -> float:
    """Of the whole run; `trainable` parameters beside a frozen model, or all of them."""
    if trainable is None:
        return FLOPS_PER_TOKEN * parameters * tokens
    return (FROZEN_FLOPS_PER_TOKEN * parameters + FLOPS_PER_TOKEN * trainable) * tokens


def days(flops: float, devices: int, peak_flops: float, utilisation: float) -> float:
    """Without faults. Perfect scaling is assumed: the utilisation of many devices is to be given."""
    return flops / (devices * peak_flops * utilisation * SECONDS_PER_DAY)


def utilisation_of(flops: float, devices: int, peak_flops: float, in_days: float) -> float:
    """The share of the peak that such a run would need."""
    return flops / (devices * peak_flops * in_days * SECONDS_PER_DAY)
