"""Copies over all documents of a run: which ones leave. The first one in order stays.

Memory grows by 32 bytes a document, not with the text: signatures are read from disk, a band at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from trainrun_trainer.corpus.ngrams import BAND_ROWS, BANDS

KEY = np.dtype([("high", np.uint64), ("low", np.uint64)])
Flags = npt.NDArray[np.bool_]


def exact_key(text: str) -> bytes:
    """128 bits of the text; case and white space do not count."""
    return xxhash.xxh3_128_digest(" ".join(text.lower().split()).encode())


def exact_copies(keys: npt.NDArray[np.void]) -> Flags:
    """True for each document whose key was seen before."""
    is_copy = np.ones(len(keys), np.bool_)
    is_copy[np.unique(keys, return_index=True)[1]] = False
    return is_copy


def near_copies(parts: Sequence[Path], min_similarity: float) -> Flags:
    """True for each document that is like an earlier one; `parts` are files of signatures, in order.

    Documents that meet in a band are compared with the first of them by their whole signatures. So A, B and C, each
    like the one before, may leave A only, as clusters do.
    """
    signatures = [np.load(part, mmap_mode="r") for part in parts]
    starts = np.cumsum([0, *(len(one) for one in signatures)])
    is_copy = np.zeros(int(starts[-1]), np.bool_)
    for band in range(BANDS):
        rows = slice(band * BAND_ROWS, (band + 1) * BAND_ROWS)
        keys = np.concatenate([_band_keys(one[:, rows]) for one in signatures])
        order = np.argsort(keys, kind="stable")
        is_head = np.r_[True, keys[order][1:] != keys[order][:-1]]
        heads = np.maximum.accumulate(np.where(is_head, np.arange(len(keys)), 0))
        for place in np.flatnonzero(~is_head).tolist():
            document, original = int(order[place]), int(order[heads[place]])
            if not is_copy[document]:
                alike = np.mean(_row(signatures, starts, document) == _row(signatures, starts, original))
                is_copy[document] = alike >= min_similarity
    return is_copy


def _band_keys(band: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    total = np.zeros(len(band), np.uint64)
    for column in band.T:
        total = (total ^ column.astype(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
        total ^= total >> np.uint64(27)
    return total


def _row(
    signatures: Sequence[npt.NDArray[np.uint32]], starts: npt.NDArray[np.int64], document: int
) -> npt.NDArray[np.uint32]:
    part = int(np.searchsorted(starts, document, "right")) - 1
    row: npt.NDArray[np.uint32] = signatures[part][document - int(starts[part])]
    return row
