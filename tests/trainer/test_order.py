"""The order of rows is a pure function with exact ratios and exact use."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainrun_trainer.order import BLOCK_ROWS, RowOrder, block_counts, mix, permute

SEEDS = st.integers(0, 2**53)
PINNED = [(0, 43), (0, 81), (0, 68), (0, 90), (0, 19), (0, 4), (0, 26), (0, 14)]
"""Places 9,998 to 10,005 of weights 0.8 and 0.2 over 100 and 40 rows, seed 7."""


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=32).filter(lambda w: sum(w) > 1e-3))
def test_block_counts_are_exact(weights: list[float]) -> None:
    """They sum to the block, and none is a whole row away from its share."""
    counts = block_counts(weights)
    assert sum(counts) == BLOCK_ROWS
    assert all(abs(c - w / sum(weights) * BLOCK_ROWS) < 1 for c, w in zip(counts, weights, strict=True))
    assert all(c == 0 for c, w in zip(counts, weights, strict=True) if w == 0)


@given(st.integers(1, 5000), SEEDS)
def test_permute_is_a_permutation(size: int, seed: int) -> None:
    """Every index exactly once, for every size and key."""
    assert sorted(permute(np.arange(size), size, mix(seed)).tolist()) == list(range(size))


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.floats(0.05, 0.95), SEEDS)
def test_rows_are_used_floor_or_ceil_times_and_ratios_are_exact(a: int, b: int, share: float, seed: int) -> None:
    """After any number of whole blocks the mix is exact; after any prefix no row is ahead by more than one."""
    order = RowOrder([share, 1 - share], [a, b], seed)
    drawn = order.rows(range(2 * BLOCK_ROWS + 137))
    for block in range(2):
        sources = Counter(source for source, _ in drawn[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS])
        assert [sources[0], sources[1]] == block_counts([share, 1 - share])
    for source, size in enumerate((a, b)):
        used = Counter(row for s, row in drawn if s == source)
        draws = sum(used.values())
        assert set(used.values()) <= {draws // size, -(-draws // size)}
        assert draws < size or len(used) == size


@given(SEEDS, st.integers(0, 30_000), st.integers(1, 50))
@settings(max_examples=10, deadline=None)
def test_order_does_not_depend_on_how_it_is_asked(seed: int, first: int, count: int) -> None:
    """A resumed run asks for a window in the middle and gets the same rows."""
    window = range(first, first + count)
    whole = RowOrder([3, 1], [50, 70], seed).rows(window)
    single = [RowOrder([3, 1], [50, 70], seed).rows(range(p, p + 1))[0] for p in (first, first + count - 1)]
    assert [whole[0], whole[-1]] == single


def test_the_order_is_pinned() -> None:
    """Runs live longer than releases: a changed order would change every resumed run."""
    drawn = RowOrder([0.8, 0.2], [100, 40], 7).rows(range(9_998, 10_006))
    assert drawn == PINNED


def test_another_seed_gives_another_order() -> None:
    """The seed matters."""
    assert RowOrder([1], [1000], 1).rows(range(20)) != RowOrder([1], [1000], 2).rows(range(20))


def test_skipped_rows_are_never_drawn_and_the_others_take_their_place() -> None:
    """The skip list enters through the order and nowhere else."""
    order = RowOrder([1], [20], 3, skip={0: [4, 11]})
    used = Counter(row for _, row in order.rows(range(36)))
    assert set(used) == set(range(20)) - {4, 11}
    assert set(used.values()) == {2}


def test_a_source_without_rows_may_not_have_weight() -> None:
    """Preparation refuses such a run; here it would be our own bug."""
    with pytest.raises(AssertionError, match="no rows"):
        RowOrder([1, 1], [5, 0], 0)
    assert {source for source, _ in RowOrder([1, 0], [5, 0], 0).rows(range(30))} == {0}
