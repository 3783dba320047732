"""Which row comes at which place: a pure function of weights, row counts and seed, for ever the same.

Weights become integer row counts of a block of 10,000 rows. A seeded permutation of each block says which
source a place draws from; the k-th draw of source s is row perm(seed, s, k div n_s)(k mod n_s), so each row
is used floor(k/n_s) or ceil(k/n_s) times. Permutations are keyed Feistel networks: no state, no index file,
and no dependence on a library's random numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

BLOCK_ROWS = 10_000
ROUNDS = 6
U64 = np.uint64
MASK64 = (1 << 64) - 1

Ids = npt.NDArray[np.int64]


def block_counts(weights: Sequence[float]) -> list[int]:
    """Rows per source in a block, by largest remainder (ties to the first); they sum to 10,000."""
    total = float(sum(weights))
    exact = [w / total * BLOCK_ROWS for w in weights]
    counts = [int(e) for e in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: BLOCK_ROWS - sum(counts)]:
        counts[i] += 1
    return counts


def mix(*words: int) -> int:
    """A 64-bit key from small integers (splitmix64 steps)."""
    state = 0
    for word in words:
        state = (state ^ (word & MASK64)) + 0x9E3779B97F4A7C15 & MASK64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & MASK64
        state ^= state >> 31
    return state


def permute(indices: Ids, size: int, key: int) -> Ids:
    """Images of `indices` under the key's permutation of 0..size-1 (Feistel network with cycle walking)."""
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    values = _encrypt(indices.astype(U64), half_bits, key)
    while True:
        outside = values >= U64(size)
        if not outside.any():
            return values.astype(np.int64)
        values[outside] = _encrypt(values[outside], half_bits, key)


def _encrypt(values: npt.NDArray[np.uint64], half_bits: int, key: int) -> npt.NDArray[np.uint64]:
    shift, mask = U64(half_bits), U64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for i in range(ROUNDS):
        word = right + U64(mix(key, i))
        word = (word ^ (word >> U64(30))) * U64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> U64(27))) * U64(0x94D049BB133111EB)
        left, right = right, left ^ ((word >> U64(29)) & mask)
    return (left << shift) | right


class RowOrder:
    """The run's endless row sequence. Sources are numbered in the order given.

    `skip` names rows (source, row) that are never drawn: the remaining ones take their places.
    """

    def __init__(
        self,
        weights: Sequence[float],
        num_rows: Sequence[int],
        seed: int,
        skip: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        self.counts = block_counts(weights)
        self.seed = seed
        self._usable = {s: np.setdiff1d(np.arange(num_rows[s]), rows) for s, rows in (skip or {}).items()}
        self._sizes = [len(self._usable[s]) if s in self._usable else n for s, n in enumerate(num_rows)]
        empty = [s for s, count in enumerate(self.counts) if count and not self._sizes[s]]
        assert not empty, f"sources {empty} have weight but no rows"
        self._block = lru_cache(maxsize=4)(self._compute_block)

    def rows(self, positions: range) -> list[tuple[int, int]]:
        """(source, row) at each place of the sequence."""
        found = []
        for position in positions:
            sources, rows = self._block(position // BLOCK_ROWS)
            found.append((int(sources[position % BLOCK_ROWS]), int(rows[position % BLOCK_ROWS])))
        return found

    def epoch(self, position: int) -> int:
        """How often the row at this place was drawn before."""
        block, place = divmod(position, BLOCK_ROWS)
        sources, _ = self._block(block)
        source = int(sources[place])
        draw = block * self.counts[source] + int((sources[:place] == source).sum())
        return draw // self._sizes[source]

    def _compute_block(self, block: int) -> tuple[Ids, Ids]:
        places = permute(np.arange(BLOCK_ROWS), BLOCK_ROWS, mix(self.seed, 1, block))
        sources = np.repeat(np.arange(len(self.counts)), self.counts)[places]
        rows = np.zeros(BLOCK_ROWS, np.int64)
        for source, count in enumerate(self.counts):
            if count:
                draws = block * count + np.arange(count)
                rows[sources == source] = self._draw(source, draws)
        return sources, rows

    def _draw(self, source: int, draws: Ids) -> Ids:
        size = self._sizes[source]
        picked = np.empty(len(draws), np.int64)
        for epoch in range(int(draws[0]) // size, int(draws[-1]) // size + 1):
            here = draws // size == epoch
            picked[here] = permute(draws[here] % size, size, mix(self.seed, 2, source, epoch))
        return self._usable[source][picked] if source in self._usable else picked
