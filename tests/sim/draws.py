"""Random draws without a stream: each is a hash of the seed and of what is drawn, so one more draw moves no other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def unit(seed: int, *what: object) -> float:
    """In [0, 1)."""
    digest = hashlib.blake2b(repr((seed, *what)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def between(low: int, high: int, seed: int, *what: object) -> int:
    """A whole number, both ends included."""
    return low + int(unit(seed, *what) * (high - low + 1))


def one_of(choices: Sequence[T], seed: int, *what: object) -> T:
    """One of them."""
    return choices[int(unit(seed, *what) * len(choices))]
