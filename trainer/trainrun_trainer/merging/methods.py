"""The arithmetic of merging one tensor of several models. Pure functions; computed and returned in fp32.

`base` is the tensor of the first model; a difference is another model's tensor less the base.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import xxhash

PARALLEL = 0.9995
"""Above this cosine the arc's formula divides by almost nothing, and the arc is a line anyway."""
SMALLEST_NORM = 1e-8
PIECE = 1 << 18
"""Elements that are merged at once: a megabyte each of a handful of intermediate results, which caches hold."""


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
    trims = [Trim(base, other, density) for other in others]

    def merge(start: torch.Tensor, differences: list[torch.Tensor]) -> torch.Tensor:
        kept = [trim.next(difference) for trim, difference in zip(trims, differences, strict=True)]
        return start.add(mean_of_agreeing(kept, weights), alpha=t)

    return _in_pieces(base, others, merge)


def dare(
    base: torch.Tensor, others: Sequence[torch.Tensor], weights: Sequence[float], drop: float, t: float, seed: int,
    name: str, elects_signs: bool,
) -> torch.Tensor:  # fmt: skip
    """Drop each element of each difference with probability `drop` and scale the rest up; then the sum, or TIES."""
    lots = [lot(seed, name, number) for number in range(len(others))]

    def merge(start: torch.Tensor, differences: list[torch.Tensor]) -> torch.Tensor:
        for dice, difference in zip(lots, differences, strict=True):
            difference.mul_(survivors(dice, difference.numel(), drop)).div_(1 - drop)
        if elects_signs:
            return start.add(mean_of_agreeing(differences, weights), alpha=t)
        for difference, weight in zip(differences, weights, strict=True):
            start = start.add(difference, alpha=t * weight)
        return start

    return _in_pieces(base, others, merge)


def lot(seed: int, name: str, number: int) -> torch.Generator:
    """What decides over tensor `name` of model `number`: a function of these arguments, not of what came before."""
    return torch.Generator().manual_seed(xxhash.xxh3_64_intdigest(f"{seed}:{number}:{name}".encode()) >> 1)


def survivors(dice: torch.Generator, count: int, drop: float) -> torch.Tensor:
    """Which of the next `count` elements of a difference stay; the same in one piece or in many."""
    return torch.rand(count, generator=dice) >= drop


class Trim:
    """All of a difference but its largest share by magnitude set to 0, piece by piece; of equal ones the first stay."""

    def __init__(self, base: torch.Tensor, other: torch.Tensor, density: float) -> None:
        self._smallest_kept, self._equals_left = -1.0, 0
        if density >= 1 or not base.numel():
            return
        num_kept = max(1, int(density * base.numel()))
        sizes = (other.float() - base.float()).abs_().reshape(-1).numpy()
        place = sizes.size - num_kept
        # numpy selects many times faster than torch's kthvalue, and in place
        sizes.partition(place)
        self._smallest_kept = float(sizes[place])
        self._equals_left = num_kept - int((sizes[place:] > self._smallest_kept).sum())

    def next(self, difference: torch.Tensor) -> torch.Tensor:
        """The next piece of the flattened difference, trimmed."""
        sizes = difference.abs()
        is_kept = sizes > self._smallest_kept
        if self._equals_left:
            equals = (sizes == self._smallest_kept).nonzero()[: self._equals_left, 0]
            is_kept[equals] = True
            self._equals_left -= len(equals)
        return difference * is_kept


def mean_of_agreeing(differences: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Per element: the sign with more weighted mass wins, and those of that sign are averaged by weight.

    Uses up `differences`.
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


def _in_pieces(
    base: torch.Tensor,
    others: Sequence[torch.Tensor],
    merge: Callable[[torch.Tensor, list[torch.Tensor]], torch.Tensor],
) -> torch.Tensor:
    """`merge` of a piece of the base and of the differences from it, for all pieces in their order.

    Of all that a merge computes on the way, only a piece is in memory: of a large tensor a dozen copies would be.
    """
    merged = torch.empty(base.shape, dtype=torch.float32)
    into, start, *ends = (tensor.reshape(-1) for tensor in (merged, base, *others))
    for first in range(0, len(start), PIECE):
        piece = slice(first, first + PIECE)
        begin = start[piece].float()
        into[piece] = merge(begin, [end[piece].float() - begin for end in ends])
    return merged
