"""The pretrained model under adapters: which files it is, and one hash that says whether it is still the same."""

from __future__ import annotations

import json
from pathlib import Path

import xxhash

from trainrun_trainer.errors import ConfigError
from trainrun_trainer.storage import hash_file

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
LINEAGE = "lineage.json"


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
