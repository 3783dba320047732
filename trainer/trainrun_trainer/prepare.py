"""Text to rows, once per run: tokenizer, held-out split, packed rows and a manifest written last.

`prepare(config)` is a function of the data configuration and the text; its output lies in
`<checkpoint.path>/data/<hash>/` and is used by every later worker group of the run, so a changed text
folder cannot change a run that has started.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from trainrun_api.contract import CheckpointLayout
from trainrun_api.train_config import DataConfig

from trainrun_trainer.errors import DataError
from trainrun_trainer.packing import Packer
from trainrun_trainer.storage import Storage, hash_file
from trainrun_trainer.text import Document, read_documents
from trainrun_trainer.tokenizer import make_tokenizer

FORMAT = 1
"""Part of the hash: rows of another format are prepared again."""
TOKENIZE_DOCUMENTS = 256
"""Documents per call of the tokenizer."""
TRAIN, HELD_OUT = "train", "held_out"


@dataclass(frozen=True)
class DataManifest:
    """What was prepared: `facts` is the JSON on disk, `folder` where it lies."""

    data_hash: str
    folder: Path
    facts: dict[str, Any]

    @property
    def source_names(self) -> list[str]:
        """Sources in the order of their numbers."""
        return sorted(self.facts["sources"])

    def split(self, source: str, split: str) -> dict[str, int]:
        """rows, documents, tokens and tail_tokens of one split."""
        counts: dict[str, int] = self.facts["sources"][source][split]
        return counts


def data_hash(config: DataConfig) -> str:
    """Name of the prepared data of this configuration."""
    canonical = json.dumps({"format": FORMAT, **config.model_dump()}, sort_keys=True)
    return xxhash.xxh3_64_hexdigest(canonical.encode())


def prepare(config: DataConfig, storage: Storage) -> DataManifest:
    """Reuse what is there and whole, or make it. Called by rank 0, under a claim.

    Raises DataError with one sentence naming file and line, or the source that is too small.
    """
    found = open_prepared(config, storage)
    if found is not None and _is_whole(found):
        return found
    name = data_hash(config)
    place = f"{CheckpointLayout.DATA}/{name}"
    storage.delete(place)
    folder = storage.folder(place)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(config.tokenizer, _training_texts(config))
    tokenizer.save_pretrained(folder / "tokenizer")
    facts = {
        "schema": FORMAT, "data_hash": name, "config": config.model_dump(), "vocab_size": len(tokenizer),
        "sources": {
            source: _pack_source(config, source, number, tokenizer, folder)
            for number, source in enumerate(sorted(config.sources))
        },
    }  # fmt: skip
    _refuse_too_little(config, facts)
    facts["files"] = {str(p.relative_to(folder)): hash_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    storage.settle(place)
    storage.put(f"{place}/{CheckpointLayout.MANIFEST}", json.dumps(facts, sort_keys=True).encode())
    return DataManifest(name, folder, facts)


def open_prepared(config: DataConfig, storage: Storage) -> DataManifest | None:
    """The manifest that rank 0 has written, or None."""
    name = data_hash(config)
    place = f"{CheckpointLayout.DATA}/{name}"
    try:
        facts = json.loads(storage.get(f"{place}/{CheckpointLayout.MANIFEST}"))
    except (FileNotFoundError, ValueError):
        return None
    return DataManifest(name, storage.read_folder(place), facts)


def is_held_out(text: str, share: float) -> bool:
    """By the document's hash: equal texts fall on the same side, whatever the order of files."""
    return xxhash.xxh3_64_intdigest(text.encode()) < share * 2.0**64


def _is_whole(data: DataManifest) -> bool:
    for name, facts in data.facts["files"].items():
        path = data.folder / name
        if not path.is_file() or hash_file(path) != facts:
            return False
    return True


def _training_texts(config: DataConfig) -> Iterator[str]:
    for name in sorted(config.sources):
        for document in read_documents(name, config.sources[name]):
            if not is_held_out(document.text, config.held_out_share):
                yield document.text


def _pack_source(config: DataConfig, name: str, number: int, tokenizer: Any, folder: Path) -> dict[str, Any]:
    place = folder / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    packers = {split: Packer(place, split, number, config.row_tokens) for split in (TRAIN, HELD_OUT)}
    content = xxhash.xxh3_128()
    with open(place / "documents.jsonl", "w", encoding="utf-8") as index:
        for first, batch in _batches(read_documents(name, config.sources[name])):
            encoded = tokenizer([d.text for d in batch], add_special_tokens=False, verbose=False)["input_ids"]
            for i, (document, ids) in enumerate(zip(batch, encoded, strict=True)):
                split = HELD_OUT if is_held_out(document.text, config.held_out_share) else TRAIN
                content.update(document.text.encode())
                packers[split].add(first + i, np.array([*ids, tokenizer.eos_token_id], np.int32))
                entry = {"file": document.file, "line": document.line, "split": split, "tokens": len(ids) + 1}
                index.write(json.dumps(entry) + "\n")
    counts: dict[str, Any] = {split: packer.close() for split, packer in packers.items()}
    return {**counts, "content_xxh3": content.hexdigest()}


def _batches(documents: Iterator[Document]) -> Iterator[tuple[int, list[Document]]]:
    first, batch = 0, []
    for document in documents:
        batch.append(document)
        if len(batch) == TOKENIZE_DOCUMENTS:
            yield first, batch
            first, batch = first + len(batch), []
    if batch:
        yield first, batch


def _refuse_too_little(config: DataConfig, facts: dict[str, Any]) -> None:
    for name, source in facts["sources"].items():
        if not source[TRAIN]["documents"] + source[HELD_OUT]["documents"]:
            raise DataError(f"data.sources.{name}.path={config.sources[name].path}: every document is empty; add text")
        weight = config.mix.get(name, 0.0) if config.mix else 1.0
        if weight > 0 and not source[TRAIN]["rows"]:
            raise DataError(
                f"data.sources.{name}: {source[TRAIN]['tokens']} training tokens do not fill one row of "
                f"data.row_tokens={config.row_tokens}; add text, use shorter rows, or give the source weight 0"
            )
