"""The text of all sources in one state: which files there are, and a hash of their names, sizes and content.

A tokenizer that is taken from elsewhere counts with it: the same text in other tokens is other data. Only what looks
new is read: equal size and time of change stand for equal content, in a bucket the ETag does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import xxhash
from trainrun_api.contract import CheckpointLayout
from trainrun_api.data_config import DataConfig

from trainrun_trainer.base import LINEAGE
from trainrun_trainer.corpus.files import SourceFile, all_files, unchanged
from trainrun_trainer.errors import TextsChanged
from trainrun_trainer.logs import log
from trainrun_trainer.storage import hash_file

READERS = 8
"""Files that are read at once."""
SETTLED_NANOSECONDS = 2 * 10**9
"""A file that has just been written may change again without a change of its time."""
TRIES = 5
"""Beginnings over text that changes while it is read."""

TOKENIZER_SUFFIXES = frozenset({".json", ".txt", ".model", ".jinja"})
TELLS_OF_MODELS = frozenset(
    {LINEAGE, CheckpointLayout.MANIFEST, "generation_config.json", "model.safetensors.index.json"}
)
"""Files of a model's folder that have nothing to do with its tokenizer."""

Known = dict[str, list[str]]
"""Address of a file to its size and time of change when it was read, and the hash of its content."""
T = TypeVar("T")


@dataclass(frozen=True)
class Texts:
    """One state of the text."""

    hash: str
    files: tuple[SourceFile, ...] | None = None
    """None: an earlier start has found them, and data that is prepared is all that may be used."""


def look_at(config: DataConfig, known: Known) -> tuple[Texts, Known]:
    """The text as it is now, and what is known of it for the next time. Raises DataError."""
    files = all_files(config)
    with ThreadPoolExecutor(READERS) as threads:
        contents = list(threads.map(lambda file: _content(file, known), files))
    facts = [[f.source, f.label, f.size, content] for f, content in zip(files, contents, strict=True)]
    if config.tokenizer.path is not None:
        facts.extend(_words_of(Path(config.tokenizer.path)))
    places = tuple(source.path for source in config.sources.values())
    elsewhere = {address: of for address, of in known.items() if not address.startswith(places)}
    settled = time.time_ns() - SETTLED_NANOSECONDS
    read = {
        file.address: [_look(file), content]
        for file, content in zip(files, contents, strict=True)
        if not file.is_in_bucket and int(file.version) < settled
    }
    return Texts(xxhash.xxh3_64_hexdigest(json.dumps(facts).encode()), tuple(files)), elsewhere | read


def again_if_texts_change(act: Callable[[], T]) -> T:
    """What `act` returns, begun anew when a file changed under it. Raises TextsChanged if that does not end."""
    for _ in range(TRIES - 1):
        try:
            return act()
        except TextsChanged as changed:
            log("begun-anew", reason=str(changed))
    return act()


def _content(file: SourceFile, known: Known) -> str:
    if file.is_in_bucket:
        return file.version
    look, content = known.get(file.address, ["", ""])
    if look == _look(file):
        return content
    with unchanged(file):
        return str(hash_file(Path(file.address))["xxh3"])


def _words_of(folder: Path) -> list[list[Any]]:
    """Facts of a tokenizer's files, a few megabytes; not of a model's beside them, nor of how the model was made."""
    files = sorted(folder.glob("*")) if folder.is_dir() else []
    words = (file for file in files if file.suffix in TOKENIZER_SUFFIXES and file.name not in TELLS_OF_MODELS)
    return [["tokenizer", file.name, file.stat().st_size, hash_file(file)["xxh3"]] for file in words]


def _look(file: SourceFile) -> str:
    return f"{file.size} {file.version}"
