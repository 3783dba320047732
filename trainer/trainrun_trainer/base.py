"""A model folder as files: which hold tensors, what their headers say, and one hash: is it still the same?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash
from safetensors import SafetensorError, safe_open

from trainrun_trainer.errors import ConfigError
from trainrun_trainer.storage import hash_file

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
LINEAGE = "lineage.json"
MOST_HEADER_BYTES = 100_000_000
"""The format's own limit."""
POINTER = b"version https://git-lfs"
"""With it begins what git leaves in a large file's place where git-lfs has not fetched it."""


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


def read_settings(folder: Path, where: str) -> dict[str, Any]:
    """config.json. Raises ConfigError, beginning with `where`, if there is none."""
    try:
        found = json.loads((folder / "config.json").read_text())
        if not isinstance(found, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: its config.json cannot be read ({error})") from error
    return found


def refuse_unreadable_weights(folder: Path, where: str) -> None:
    """ConfigError, beginning with `where`, if a file of tensors is missing or torn; headers are read, tensors are not.

    Other errors of the storage are left as they are: they may pass.
    """
    try:
        files = tensor_files(folder)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{where}: its {INDEX} cannot be read ({error}); fetch it again") from error
    for file in files:
        if not file.is_file():
            raise ConfigError(f"{where}: {_instead_of(file)}")
        try:
            with safe_open(file, "np"):
                pass
        except SafetensorError as error:
            raise ConfigError(f"{where}: {file.name} {_told(file, error)}") from error


def _instead_of(missing: Path) -> str:
    pickles = sorted(path.name for path in missing.parent.glob("pytorch_model*.bin"))
    if missing.name != WEIGHTS or not pickles:
        return f"{missing.name} is not there; give a Hugging Face folder with all its safetensors"
    return (
        f"its weights are pickled ({pickles[0]}), and a pickle can run any code, so none is loaded; expected "
        "safetensors: convert them where you trust them, AutoModelForCausalLM.from_pretrained(OLD)"
        ".save_pretrained(NEW), and copy the tokenizer"
    )


def _told(file: Path, error: SafetensorError) -> str:
    with open(file, "rb") as stream:
        if stream.read(len(POINTER)) == POINTER:
            return "is git-lfs's pointer to the file, not the file; run git lfs pull where it was cloned"
    return f"is torn or no safetensors file ({error}); fetch it again"


def base_hash(folder: Path, where: str) -> str:
    """Of config.json and all tensors' files. ConfigError, beginning with `where`, if they cannot be read."""
    try:
        facts = {path.name: hash_file(path) for path in [folder / "config.json", *tensor_files(folder)]}
    except (OSError, ValueError, KeyError) as error:
        if (folder / "config.json").exists():
            refuse_unreadable_weights(folder, where)  # says best what is wrong with a model
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
