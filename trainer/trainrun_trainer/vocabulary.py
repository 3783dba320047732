"""Whether two tokenizers mean the same by a number: a model knows its tokens by number alone. No library is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from trainrun_trainer.errors import ConfigError

MOST_TOLD = 2
"""Tokens that a sentence names."""


@dataclass(frozen=True)
class Vocabulary:
    """Tokens and their numbers."""

    numbers: Mapping[str, int]
    added: Set[str] = frozenset()
    """Those beside the ordinary ones, such as for padding or a chat's turns."""

    @classmethod
    def of(cls, tokenizer: Any) -> Vocabulary:
        """Of a tokenizer as transformers has it."""
        return cls(tokenizer.get_vocab(), frozenset(tokenizer.get_added_vocab()))

    @property
    def size(self) -> int:
        """Rows that an embedding needs."""
        return max(self.numbers.values(), default=-1) + 1


def differing(one: Vocabulary, other: Vocabulary) -> list[str]:
    """Tokens of another number, sorted; those that only one of the two has count if they are ordinary ones."""
    added = {*one.added, *other.added}
    found = []
    for token in sorted({*one.numbers, *other.numbers}):
        ours, theirs = one.numbers.get(token), other.numbers.get(token)
        if ours != theirs and not (token in added and None in (ours, theirs)):
            found.append(token)
    return found


def told(differ: Sequence[str], one: Vocabulary, other: Vocabulary) -> str:
    """The first of what differs, for a sentence about `one`."""
    tokens = [f"{token!r} is {_number(one, token)}, there {_number(other, token)}" for token in differ[:MOST_TOLD]]
    return "; ".join([*tokens, "1 token differs" if len(differ) == 1 else f"{len(differ)} tokens differ"])


def refuse_too_many_tokens(field: str, num_tokens: int, embedded: int, where: str) -> None:
    """ConfigError if a model has no row for some token."""
    if num_tokens > embedded:
        raise ConfigError(
            f"{field} has {num_tokens} tokens but {where} embeds {embedded}; use the tokenizer of that folder"
        )


def _number(of: Vocabulary, token: str) -> int | str:
    return of.numbers.get(token, "missing")
