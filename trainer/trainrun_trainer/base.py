"""A model folder as files: which hold tensors, what their headers say, and one hash: is it still the same?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import xxhash

from trainrun_trainer.errors import ConfigError
from trainrun_trainer.storage import hash_file

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
LINEAGE = "lineage.json"
MOST_HEADER_BYTES = 100_000_000
"""The format's own limit."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a safetensors file; `start` and `end` count from the end of its header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def tensor_files(folder: Path) -> list[Path]:
    """Safetensors files of a Hugging Face folder: those of its index, or the only one. Raises OSError, ValueError."""
    index = folder / INDEX
    if not index.exists():
        return [folder / WEIGHTS]
    return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]


def base_hash(folder: Path, where: str) -> str:
    """Of config.json and all tensors' files. ConfigError, beginning with `where`, if they cannot be read."""
    try:
        facts = {path.name: hash_file(path) for path in [folder / "config.json", *tensor_files(folder)]}
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{where}: its files cannot be read ({error})") from error
    return xxhash.xxh3_64_hexdigest(json.dumps(facts, sort_keys=True).encode())


def read_header(path: Path) -> tuple[bytes, list[TensorEntry]]:
    """A safetensors file's length and header as they are, and its tensors in the order of their bytes."""
    with open(path, "rb") as stream:
        length = stream.read(8)
        size = int.from_bytes(length, "little")
        text = stream.read(size) if size < MOST_HEADER_BYTES else b""
    try:
        entries = [
            TensorEntry(name, facts["dtype"], tuple(facts["shape"]), *facts["data_offsets"])
            for name, facts in json.loads(text).items()
            if name != "__metadata__"
        ]
    except ValueError as error:
        raise ConfigError(f"{path} is no safetensors file ({error}); fetch the base model again") from error
    return length + text, sorted(entries, key=lambda entry: entry.start)
