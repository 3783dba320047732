"""Encoding word by word gives the ids of the library itself, whatever the text; where it could not, it is not used."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers
from trainrun_trainer.corpus import words
from trainrun_trainer.corpus.tokenise import open_encoder
from trainrun_trainer.corpus.words import WordEncoder, can_go_by_words

END = "<|end|>"
TEXT = Path(words.__file__).read_text() + "It's 1984, isn't it?  They're we'll I'd\n\n\tcaf\u00e9 \u4e2d\u6587\n" * 20


def bpe(
    before: pre_tokenizers.PreTokenizer | None = None, normalizer: normalizers.Normalizer | None = None
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = before or pre_tokenizers.ByteLevel(add_prefix_space=False)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.add_tokens([AddedToken("it is added", normalized=True), AddedToken("strips", lstrip=True, rstrip=True)])
    return tokenizer


TOKENIZER = bpe()
PIECES = st.sampled_from([
    *"aZ09'\"_-.<|>\\ \t\n\r\x0b\x0c\x00\x1c\x1f\x7f", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "  ", "\n\n",
    " \n", "\r\n", "word", " words", "1234", END, "it is added", "added", "strips", "\u00e9", "e\u0301", "\u0301",
    "\u00a0", "\u2028", "\u3000", "\u0085", "\u4e2d", "\u00b2", "\U0001f600", "x" * 70,
])  # fmt: skip


@given(texts=st.lists(st.lists(PIECES, max_size=30).map("".join), max_size=3))
@example(texts=[TEXT, TEXT[1:], ""])
@settings(deadline=None, max_examples=200)
def test_ids_are_those_of_the_library(texts: list[str]) -> None:
    assert can_go_by_words(TOKENIZER)
    encode = WordEncoder(TOKENIZER)
    wanted = [one.ids for one in TOKENIZER.encode_batch(texts, add_special_tokens=False)]
    assert encode(texts) == wanted
    assert encode(texts) == wanted, "what was seen before has the same ids"


def test_every_character_and_its_neighbours() -> None:
    """All ASCII characters, each between letters, digits, spaces and line ends."""
    encode = WordEncoder(TOKENIZER)
    texts = [left + chr(code) + right for code in range(128) for left in "a1 \n'" for right in "a1 \n'"]
    assert encode(texts) == [one.ids for one in TOKENIZER.encode_batch(texts, add_special_tokens=False)]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither many words nor long ones are kept."""
    monkeypatch.setattr(words, "CACHED_WORDS", 3)
    encode = WordEncoder(TOKENIZER)
    texts = ["one two three four", "five", "x" * 100]
    assert encode(texts[:1]) == [TOKENIZER.encode(texts[0], add_special_tokens=False).ids]
    assert sorted(encode._ids) == [" four", " three", " two", "one"]
    assert encode(texts[1:]) == [TOKENIZER.encode(text, add_special_tokens=False).ids for text in texts[1:]]
    assert sorted(encode._ids) == ["five"]


@pytest.mark.parametrize(
    "tokenizer",
    [
        bpe(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        bpe(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
        bpe(pre_tokenizers.Whitespace()),
        bpe(normalizer=normalizers.Lowercase()),
        Tokenizer(models.WordLevel({"a": 0}, "a")),
    ],
    ids=["prefix", "no-pattern", "other-words", "other-letters", "no-bpe"],
)
def test_other_tokenizers_are_left_to_the_library(tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert not can_go_by_words(tokenizer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encode = open_encoder(tmp_path)
    assert not isinstance(encode, WordEncoder)
    assert encode(["a word"]) == [tokenizer.encode("a word", add_special_tokens=False).ids]
