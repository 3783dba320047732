"""What others have measured: tokens a second and device, by chip and model size, each with its source.

The planner's utilisation comes from here: a plan with a hoped-for rate is worth nothing. It counts 6 operations per
parameter and token, without attention, so that it is lower than the MFU that some of the sources print.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainrun_operator.planner.hardware import (
    A100_40,
    A100_80,
    B200,
    B300,
    H100,
    H200,
    TRAINIUM1,
    TRAINIUM2,
    Chip,
    Precision,
)
from trainrun_operator.planner.numbers import in_words

FLOPS_PER_TOKEN = 6.0
"""Forward and backward pass, per parameter: Kaplan et al. 2020."""


@dataclass(frozen=True)
class Rate:
    """One measured row."""

    parameters: float
    tokens_per_second: float
    """Per device."""
    source: str


_S0 = "the sizing table of a 2024 HyperPod report, as a rate"
_FOUNDRY = "llm-foundry throughput tables, sequence 2,048"
_TITAN = "torchtitan's benchmark of 2024-12, 128 GPUs, sequence 8,192, compiled"
_NXD = "aws-neuron-sdk, training benchmarks on Trn1, 512 chips"

_A100 = (
    Rate(2.6e9, 9679.0, _S0),
    Rate(6.6e9, 3607.5, _S0),
    Rate(13e9, 1959.0, _S0),
    Rate(30e9, 865.5, _S0),
    Rate(65e9, 255.99, _S0),
)
_H100 = (
    Rate(6.65e9, 9670.0, f"{_FOUNDRY}, 512 GPUs"),
    Rate(8.03e9, 6514.0, _TITAN),
    Rate(29.97e9, 2308.0, _FOUNDRY),
    Rate(64.86e9, 1058.0, f"{_FOUNDRY}, 128 GPUs"),
)
_TRN1 = (
    Rate(8.03e9, 767.0, _NXD),
    Rate(70.6e9, 127.0, _NXD),
)
MEASURED: Mapping[Chip, Sequence[Rate]] = {
    A100_40: _A100,
    A100_80: _A100,
    H100: _H100,
    H200: _H100,
    TRAINIUM1: _TRN1,
}
"""H200 is planned as H100: the same peak, and no published bf16 row. Newer chips have none either."""

UNMEASURED: Mapping[Chip, float] = {B200: 0.40, B300: 0.40, TRAINIUM2: 0.25}
"""Assumed, and said so: the level of the measured chip of the same maker, rounded down."""


FAR = 3.0
"""A model so many times smaller or larger than any measured one is a guess."""


@dataclass(frozen=True)
class Utilisation:
    """A share of the peak, and where it comes from."""

    share: float
    source: str
    is_measured: bool


def expected_utilisation(chip: Chip, parameters: float, precision: Precision) -> Utilisation:
    """Of the peak in this precision."""
    in_bf16 = _in_bf16(chip, parameters)
    if precision == "bf16":
        return in_bf16
    return Utilisation(in_bf16.share, "an assumption, that of bf16: nothing is published in fp32", False)


def _in_bf16(chip: Chip, parameters: float) -> Utilisation:
    """Between the two nearest measured sizes by the logarithm of the size; beyond the last, as there."""
    rows = MEASURED.get(chip)
    if rows is None:
        return Utilisation(UNMEASURED[chip], f"an assumption: nothing is published for {chip.name}", False)
    shares = [FLOPS_PER_TOKEN * row.parameters * row.tokens_per_second / chip.peak_flops for row in rows]
    nearest = min(rows, key=lambda row: abs(math.log(row.parameters / parameters)))
    used = _between([row.parameters for row in rows], shares, parameters)
    if abs(math.log(nearest.parameters / parameters)) > math.log(FAR):
        return Utilisation(used, f"that of the nearest size measured, {in_words(nearest.parameters)}", False)
    return Utilisation(used, nearest.source, True)


def _between(sizes: Sequence[float], shares: Sequence[float], size: float) -> float:
    if size <= sizes[0]:
        return shares[0]
    for (low, low_share), (high, high_share) in zip(
        zip(sizes, shares, strict=True), zip(sizes[1:], shares[1:], strict=True), strict=False
    ):
        if size <= high:
            place = math.log(size / low) / math.log(high / low)
            return low_share + place * (high_share - low_share)
    return shares[-1]
