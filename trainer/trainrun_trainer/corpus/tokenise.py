"""One cleaned file to token ids, and the look for held-out text in training text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from tokenizers import Tokenizer

from trainrun_trainer.corpus import instructions, ngrams
from trainrun_trainer.corpus.jobs import Facts, Job, is_held_out, read_documents, whole_text
from trainrun_trainer.corpus.words import WordEncoder, can_go_by_words
from trainrun_trainer.errors import ConfigError, DataError
from trainrun_trainer.packing import HELD_OUT, TRAIN

BATCH_DOCUMENTS = 256
"""Documents per call of the tokenizer."""
HELD_NGRAMS = "held-ngrams.npy"
"""Hashes of all held-out n-grams, sorted."""

Encode = Callable[[list[str]], list[list[int]]]


def tokenise(job: Job) -> tuple[Facts, list[str]]:
    """Token ids of all documents end to end, a line of the index for each, and what is learned of examples."""
    folder = Path(job.needs)
    encode, end = _kept_encoder(folder, job.made_from.partition(":")[0]), end_of_text(folder)
    words = job.config.contamination_words if job.config.held_out_share else 0
    number = tokens = too_long = 0
    learned: list[tuple[int, int, int]] = []
    held: list[ngrams.Hashes] = []
    with (
        open(job.part("tokens"), "wb") as stream,
        open(job.part("index"), "w", encoding="utf-8") as index,
        open(job.part("digests"), "wb") as digests,
    ):
        for batch in _batches(read_documents(job.part("docs"), job.part("dropped.npy"))):
            for entry, (ids, spans) in zip(batch, _encoded(batch, encode, end, job), strict=True):
                text = whole_text(entry)
                if spans is not None and len(ids) > job.config.row_tokens:
                    too_long += 1
                    _refuse_too_long(job, entry, len(ids))
                    continue
                is_held = is_held_out(text, job.config.held_out_share)
                split = HELD_OUT if is_held else TRAIN
                stream.write(np.array(ids, np.int32).tobytes())
                line = {"file": entry["file"], "line": entry["line"], "split": split, "tokens": len(ids)}
                index.write(json.dumps(line) + "\n")
                digests.write(xxhash.xxh3_128_digest(text.encode()))
                learned += [(number, start, stop) for start, stop in spans or ()]
                if words and is_held:
                    held.append(ngrams.ngram_hashes(ngrams.word_hashes(text), words))
                number, tokens = number + 1, tokens + len(ids)
    np.save(job.part("learned.npy"), np.array(learned, np.int64).reshape(-1, 3))
    np.save(job.part("held.npy"), np.concatenate(held) if held else np.zeros(0, np.uint64))
    np.save(job.part("held-lengths.npy"), np.array([len(one) for one in held], np.int64))
    parts = ["tokens", "index", "digests", "learned.npy", "held.npy", "held-lengths.npy"]
    return {"documents": number, "tokens": tokens, "too_long": too_long}, parts


def overlap(job: Job) -> tuple[Facts, list[str]]:
    """Which held-out n-grams this file's training documents contain."""
    held = np.load(Path(job.needs) / HELD_NGRAMS, mmap_mode="r")
    seen = np.zeros(len(held), np.bool_)
    for entry in read_documents(job.part("docs"), job.part("dropped.npy")):
        text = whole_text(entry)
        if not is_held_out(text, job.config.held_out_share):
            found = ngrams.ngram_hashes(ngrams.word_hashes(text), job.config.contamination_words)
            places = np.minimum(np.searchsorted(held, found), len(held) - 1)
            seen[places[held[places] == found]] = True
    np.save(job.part("seen.npy"), seen)
    return {}, ["seen.npy"]


def open_encoder(folder: Path) -> Encode:
    """Texts to ids, without special tokens. transformers is imported only if the fast tokenizer's file is missing."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        from trainrun_trainer.tokenizer import load_tokenizer

        slow = load_tokenizer(folder)
        return lambda texts: [list(ids) for ids in slow(texts, add_special_tokens=False, verbose=False)["input_ids"]]
    fast = Tokenizer.from_file(str(file))
    fast.no_truncation()
    fast.no_padding()
    if can_go_by_words(fast):
        return WordEncoder(fast)
    return lambda texts: [one.ids for one in fast.encode_batch(texts, add_special_tokens=False)]


@lru_cache(maxsize=1)
def _kept_encoder(folder: Path, tokenizer_hash: str) -> Encode:
    """For all files that this process reads: loading takes up to half a second, and words that were seen stay known."""
    del tokenizer_hash  # part of the key: a folder may be written again
    return open_encoder(folder)


def end_of_text(folder: Path) -> int:
    """Id that ends a document; written beside the tokenizer by `prepare`."""
    return int((folder / "end_of_text").read_text())


def _encoded(
    batch: list[dict[str, Any]], encode: Encode, end: int, job: Job
) -> Iterator[tuple[list[int], list[tuple[int, int]] | None]]:
    """(ids, learned spans) of each document; None: all of it is learned."""
    if "text" in batch[0]:
        for text_ids in encode([entry["text"] for entry in batch]):
            yield [*text_ids, end], None
        return
    pieces = [_pieces(entry, job) for entry in batch]
    flat = iter(encode([text for one in pieces for text, _ in one]))
    for entry, one in zip(batch, pieces, strict=True):
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        for _, is_learned in one:
            start = len(ids)
            ids += next(flat)
            if is_learned:
                spans.append((start, len(ids)))
        if "pieces" in entry:  # a chat template writes itself what ends a turn
            ids.append(end)
            spans[-1] = (spans[-1][0], len(ids))
        yield ids, spans


def _pieces(entry: dict[str, Any], job: Job) -> Sequence[instructions.Piece]:
    if "pieces" in entry:
        return [(str(text), bool(is_learned)) for text, is_learned in entry["pieces"]]
    return instructions.pieces_of_messages(entry["messages"], _renderer(job), _where(job, entry))


def _renderer(job: Job) -> instructions.Render:
    from trainrun_trainer.tokenizer import load_tokenizer

    folder = job.config.tokenizer.path or job.needs
    if folder not in _RENDERERS:
        _RENDERERS[folder] = load_tokenizer(folder)
    tokenizer = _RENDERERS[folder]
    if not tokenizer.chat_template:
        raise ConfigError(
            f"config.data.tokenizer.path={folder} has no chat template, which "
            f"data.sources.{job.file.source}.instruct.messages_field needs; use another tokenizer, or columns"
        )

    def render(messages: Sequence[Mapping[str, Any]], begins_answer: bool) -> str:
        if not messages and not begins_answer:
            return ""
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=begins_answer))

    return render


_RENDERERS: dict[str, Any] = {}
"""Tokenizers with chat templates, loaded once for each process."""


def _refuse_too_long(job: Job, entry: dict[str, Any], length: int) -> None:
    form = job.source.instruct
    if form is not None and form.too_long == "refuse":
        raise DataError(
            f"{_where(job, entry)} has {length} tokens, but data.row_tokens={job.config.row_tokens}; raise row_tokens, "
            f"shorten the row, or set data.sources.{job.file.source}.instruct.too_long: drop"
        )


def _where(job: Job, entry: dict[str, Any]) -> str:
    return f"data.sources.{job.file.source}.path={job.source.path}: file {entry['file']}, line {entry['line']}"


def _batches(documents: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(documents, BATCH_DOCUMENTS)):
        yield batch
