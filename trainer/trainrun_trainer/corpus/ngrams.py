"""Hashes of word n-grams, and MinHash signatures of documents, in numpy.

MinHash: Broder 1997, "On the resemblance and containment of documents". The hash functions are multiply-shift
(Dietzfelbinger et al. 1997). 16 bands of 8 rows: two documents of Jaccard similarity s meet in a band with probability
1 - (1 - s^8)^16, which is 0.95 at 0.8 and 0.06 at 0.5.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import xxhash

Hashes = npt.NDArray[np.uint64]

SHINGLE_WORDS = 5
BANDS, BAND_ROWS = 16, 8
CHUNK = 4096
"""Shingles at once: a chunk takes 4 MiB, whatever the document."""
_WORD = re.compile(r"\w+")
_GENERATOR = np.random.Generator(np.random.PCG64(1997))
_FACTORS = _GENERATOR.integers(0, 2**64, BANDS * BAND_ROWS, np.uint64) | np.uint64(1)
_OFFSETS = _GENERATOR.integers(0, 2**64, BANDS * BAND_ROWS, np.uint64)


def word_hashes(text: str) -> Hashes:
    """One hash for each word; case and punctuation do not count."""
    words = _WORD.findall(text.lower())
    return np.fromiter((xxhash.xxh3_64_intdigest(word.encode()) for word in words), np.uint64, len(words))


def ngram_hashes(words: Hashes, length: int) -> Hashes:
    """One hash for each run of `length` words; none if there are fewer words."""
    count = len(words) - length + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    total = np.zeros(count, np.uint64)
    for i in range(length):
        total = total * np.uint64(0x9E3779B97F4A7C15) + words[i : i + count]
        total ^= total >> np.uint64(29)
    return total


def signature(words: Hashes) -> npt.NDArray[np.uint32]:
    """MinHash of a document's shingles: 128 numbers; the share that two have in common estimates their Jaccard."""
    shingles = np.unique(ngram_hashes(words, max(1, min(SHINGLE_WORDS, len(words)))))
    lowest = np.full(BANDS * BAND_ROWS, 0xFFFFFFFF, np.uint32)
    for start in range(0, len(shingles), CHUNK):
        mixed = shingles[start : start + CHUNK, None] * _FACTORS + _OFFSETS
        lowest = np.minimum(lowest, (mixed >> np.uint64(32)).astype(np.uint32).min(0))
    return lowest
