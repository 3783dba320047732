"""Hashes of what a stage is made from: its configuration, outputs of earlier stages, files from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import xxhash
from trainrun_api.contract import CheckpointLayout

from trainrun_trainer.base import LINEAGE, base_hash
from trainrun_trainer.claims import read_claims
from trainrun_trainer.resume import history
from trainrun_trainer.storage import LocalDirectory, hash_file

SCHEME = "stage:"
"""What a reference to another stage begins with."""
NAMED_CHARACTERS = 12
"""Of a hash, in a folder's name."""
HISTORY = frozenset({LINEAGE, CheckpointLayout.MANIFEST})
"""Files of a model folder that tell how and when it was made: equal models of two makings differ in them."""


def hash_of(value: Any) -> str:
    """Of JSON."""
    return xxhash.xxh3_64_hexdigest(json.dumps(value, sort_keys=True).encode())


def model_files(folder: Path, below: str) -> dict[str, str]:
    """Hashes of a model folder's files, whose names begin with `below`."""
    return {f"{below}/{name}": xxh3 for name, xxh3 in files_of(folder).items() if name not in HISTORY}


def files_of(folder: Path) -> dict[str, str]:
    """Name below the folder to xxh3, of all its files."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hash_file(path)["xxh3"] for path in files}


def checkpoint_files(store: LocalDirectory) -> dict[str, str]:
    """The manifests of the checkpoints that count."""
    names = (CheckpointLayout.step_dir(c.step, c.claim) for c in history(store, read_claims(store)))
    manifests = (f"{name}/{CheckpointLayout.MANIFEST}" for name in names)
    return {name: store.hash(name)["xxh3"] for name in manifests if (store.root / name).exists()}


def outside(config: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """(field, hash) of files and folders from elsewhere that a configuration names; what is not there has none.

    Raises ConfigError if a model cannot be read.
    """
    if isinstance(config, Mapping):
        for name, value in config.items():
            yield from outside(value, f"{field}.{name}" if field else str(name))
    elif isinstance(config, list):
        for number, value in enumerate(config):
            yield from outside(value, f"{field}[{number}]")
    elif isinstance(config, str) and not config.startswith(SCHEME):
        found = _content(field, Path(config))
        if found is not None:
            yield field, found


def _content(field: str, path: Path) -> str | None:
    last = field.rpartition(".")[2].partition("[")[0]
    if last in ("model", "models", "baseline") or field == "model.path":
        return base_hash(path, f"config.{field}={path}")
    if last in ("checkpoint", "checkpoints") and path.is_dir():
        return hash_of(checkpoint_files(LocalDirectory(path)))
    if last == "prepared":
        path = path / CheckpointLayout.MANIFEST
    is_text = last in ("path", "include_path", "prepared") or ".outputs." in field
    if not is_text or not path.exists():
        return None
    return hash_of(files_of(path) if path.is_dir() else hash_file(path))
