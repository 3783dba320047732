"""Texts to token ids word by word, each word encoded once: the library's ids in a part of its time.

Before its merges, a byte-level BPE cuts text by GPT-2's pattern, of which no part goes on from a visible character to
white space. So text may be cut there first, and what lies between two cuts always has the same ids. The library
encodes what is new; most of a text has been seen. A text that contains a token that was added to the vocabulary is
left to the library whole, because such tokens are found before any pattern.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import chain

from tokenizers import Tokenizer

CUT = re.compile(r"(?<=[!-~])(?=\s)", re.ASCII)
"""Between a visible ASCII character and ASCII white space, about which no table of Unicode can differ."""
CACHED_WORDS, CACHED_LENGTH = 200_000, 48
"""Bound the memory to some 50 MB; longer words hardly come twice."""


def can_go_by_words(tokenizer: Tokenizer) -> bool:
    """Is this a byte-level BPE with GPT-2's pattern, and with nothing that looks beyond a word?"""
    spec = json.loads(tokenizer.to_str())
    model, before = spec["model"], spec["pre_tokenizer"] or {}
    return (
        spec["normalizer"] is None
        and model["type"] == "BPE"
        and not model.get("dropout")
        and before.get("type") == "ByteLevel"
        and before.get("use_regex", True)
        and not before["add_prefix_space"]
    )


class WordEncoder:
    """The ids that the tokenizer itself gives, without special tokens. Only where `can_go_by_words`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: dict[str, list[int]] = {}
        added = [re.escape(token.content) for token in tokenizer.get_added_tokens_decoder().values()]
        self._added = re.compile("|".join(added) or r"(?!)")

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        cut = [[text] if self._added.search(text) else CUT.split(text) for text in texts]
        words = set(chain.from_iterable(cut))
        if len(self._ids) > CACHED_WORDS:
            self._ids.clear()
        new = list(words.difference(self._ids))
        for word, encoded in zip(new, self._tokenizer.encode_batch(new, add_special_tokens=False), strict=True):
            self._ids[word] = encoded.ids
        found = [list(chain.from_iterable(map(self._ids.__getitem__, one))) for one in cut]
        for word in new:
            if len(word) > CACHED_LENGTH:
                del self._ids[word]
        return found
