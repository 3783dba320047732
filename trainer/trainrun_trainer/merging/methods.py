"""The arithmetic of merging one tensor of several models. Pure functions; computed and returned in fp32.

`base` is the tensor of the first model; a difference is another model's tensor less the base.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xxhash

PARALLEL = 0.9995
"""Above this cosine the arc's formula divides by almost nothing, and the arc is a line anyway."""
SMALLEST_NORM = 1e-8


def linear(tensors: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Weighted mean."""
    merged = torch.zeros_like(tensors[0], dtype=torch.float32)
    for tensor, weight in zip(tensors, weights, strict=True):
        merged.add_(tensor.float(), alpha=weight)
    return merged.div_(sum(weights))


def slerp(base: torch.Tensor, other: torch.Tensor, t: float) -> torch.Tensor:
    """The point at t (0 base, 1 other) of the arc between the two flattened tensors; a line where they are parallel."""
    a, b = base.float(), other.float()
    norms = [float(torch.linalg.vector_norm(v)) for v in (a, b)]
    product = float((a * b).sum(dtype=torch.float64))
    lengths = [norm if norm > SMALLEST_NORM else 1.0 for norm in norms]
    cosine = max(-1.0, min(1.0, product / (lengths[0] * lengths[1])))
    if abs(cosine) > PARALLEL:
        return torch.lerp(a, b, t)
    angle = torch.acos(torch.tensor(cosine, dtype=torch.float64))
    shares = [float(torch.sin(part * angle) / torch.sin(angle)) for part in (1 - t, t)]
    return a.mul(shares[0]).add_(b, alpha=shares[1])


def ties(
    base: torch.Tensor, others: Sequence[torch.Tensor], weights: Sequence[float], density: float, t: float
) -> torch.Tensor:
    """Trim each difference to its largest `density`, elect a sign per element, average what agrees with it."""
    differences = [largest(other.float() - base.float(), density) for other in others]
    return base.float().add_(mean_of_agreeing(differences, weights), alpha=t)


def dare(
    base: torch.Tensor, others: Sequence[torch.Tensor], weights: Sequence[float], drop: float, t: float, seed: int,
    name: str, elects_signs: bool,
) -> torch.Tensor:  # fmt: skip
    """Drop each element of each difference with probability `drop` and scale the rest up; then the sum, or TIES."""
    differences = []
    for number, other in enumerate(others):
        kept = survivors(base.shape, drop, seed, name, number)
        differences.append((other.float() - base.float()).mul_(kept).div_(1 - drop))
    if elects_signs:
        return base.float().add_(mean_of_agreeing(differences, weights), alpha=t)
    merged = base.float().clone()
    for difference, weight in zip(differences, weights, strict=True):
        merged.add_(difference, alpha=t * weight)
    return merged


def survivors(shape: Sequence[int], drop: float, seed: int, name: str, number: int) -> torch.Tensor:
    """Which elements of model `number`'s difference stay: a function of these arguments, not of what came before."""
    generator = torch.Generator().manual_seed(xxhash.xxh3_64_intdigest(f"{seed}:{number}:{name}".encode()) >> 1)
    return torch.rand(tuple(shape), generator=generator) >= drop


def largest(difference: torch.Tensor, density: float) -> torch.Tensor:
    """The difference with all but its largest share by magnitude at 0; of equal ones the first stay."""
    if density >= 1 or not difference.numel():
        return difference
    num_kept = max(1, int(density * difference.numel()))
    sizes = difference.abs().reshape(-1)
    place = sizes.numel() - num_kept
    # numpy selects many times faster than torch's kthvalue, and makes no indices of twice the tensor's size
    smallest_kept = float(np.partition(sizes.numpy(), place)[place])
    is_kept = sizes > smallest_kept
    equals = (sizes == smallest_kept).nonzero()[:, 0]
    is_kept[equals[: num_kept - int(is_kept.sum())]] = True
    return difference * is_kept.reshape(difference.shape)


def mean_of_agreeing(differences: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Per element: the sign with more weighted mass wins, and those of that sign are averaged by weight.

    Uses up `differences`: a large tensor is in memory as few times as can be.
    """
    weighted = [d.mul_(w) for d, w in zip(differences, weights, strict=True)]
    total = torch.zeros_like(weighted[0])
    for part in weighted:
        total.add_(part)
    is_positive = total >= 0
    total.zero_()
    shares = torch.zeros_like(total)
    for part, weight in zip(weighted, weights, strict=True):
        agrees = torch.where(is_positive, part > 0, part < 0)
        total.add_(part.mul_(agrees))
        shares.add_(agrees, alpha=weight)
    return total.div_(shares.masked_fill_(shares == 0, 1.0))
