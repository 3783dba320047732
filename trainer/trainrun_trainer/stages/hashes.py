"""Hashes of what a stage is made from: its configuration, outputs of earlier stages, files from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash
from trainrun_api.contract import CheckpointLayout
from trainrun_api.stages import SCHEME, strings

from trainrun_trainer.base import LINEAGE, base_hash, tensor_files
from trainrun_trainer.claims import read_claims
from trainrun_trainer.resume import history
from trainrun_trainer.storage import LocalDirectory, hash_file

NAMED_CHARACTERS = 12
"""Of a hash, in a folder's name."""
HISTORY = frozenset({LINEAGE, CheckpointLayout.MANIFEST})
"""Files of a model folder that tell how and when it was made: equal models of two makings differ in them."""


Seen = dict[str, list[str]]
"""Model folder to its files' sizes and times, as a hash, and the hash of their content that goes with them.

A restart in place must not read a model of many gigabytes again to find that it is the same.
"""


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


def outside(config: Any, seen: Seen) -> Iterator[tuple[str, str]]:
    """(field, hash) of files and folders from elsewhere that a configuration names; what is not there has none.

    Raises ConfigError if a model cannot be read; `seen` is used and added to.
    """
    for field, text in strings(config):
        found = None if text.startswith(SCHEME) else _content(field, Path(text), seen)
        if found is not None:
            yield field, found


def _content(field: str, path: Path, seen: Seen) -> str | None:
    last = field.rpartition(".")[2].partition("[")[0]
    if last in ("model", "models", "baseline") or field == "model.path":
        return _model(path, f"config.{field}={path}", seen)
    if last in ("checkpoint", "checkpoints") and path.is_dir():
        return hash_of(checkpoint_files(LocalDirectory(path)))
    if last == "prepared":
        path = path / CheckpointLayout.MANIFEST
    is_read_whole = last in ("path", "include_path", "prepared", "adapter") or ".outputs." in field
    if not is_read_whole or not path.exists():
        return None
    return hash_of(files_of(path) if path.is_dir() else hash_file(path))


def _model(folder: Path, where: str, seen: Seen) -> str:
    try:
        facts = [(path.name, path.stat()) for path in [folder / "config.json", *tensor_files(folder)]]
    except (OSError, ValueError, KeyError):
        return base_hash(folder, where)  # which says what is wrong
    look = hash_of([[name, of.st_size, of.st_mtime_ns] for name, of in facts])
    if seen.get(str(folder), [""])[0] != look:
        seen[str(folder)] = [look, base_hash(folder, where)]
    return seen[str(folder)][1]
