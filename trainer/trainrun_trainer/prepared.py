"""Prepared data as it lies in a store: its name, its manifest. What it is made of is in prepare.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash
from trainrun_api.contract import CheckpointLayout
from trainrun_api.data_config import DataConfig, identity

from trainrun_trainer.corpus.texts import Texts
from trainrun_trainer.storage import Storage, shared_store

FORMAT = 1
"""Part of the hash: rows of another format are prepared again."""


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


def data_hash(config: DataConfig, texts: Texts | None = None) -> str:
    """Name of the prepared data of this configuration, and of this text where it counts."""
    made_from = {"format": FORMAT, **identity(config), **({} if texts is None else {"texts": texts.hash})}
    return xxhash.xxh3_64_hexdigest(json.dumps(made_from, sort_keys=True).encode())


def open_prepared(config: DataConfig, storage: Storage, texts: Texts | None = None) -> DataManifest | None:
    """The manifest that rank 0 has written, or None."""
    return open_by_hash(data_hash(config, texts), storage)


def open_beside(name: str, checkpoints: Storage) -> DataManifest | None:
    """Prepared data of a checkpoint store: in it, or where the stages of its run share it."""
    return open_by_hash(name, checkpoints) or open_by_hash(name, shared_store(checkpoints))


def open_by_hash(name: str, storage: Storage) -> DataManifest | None:
    """Prepared data by its name, or None."""
    place = f"{CheckpointLayout.DATA}/{name}"
    try:
        facts = json.loads(storage.get(f"{place}/{CheckpointLayout.MANIFEST}"))
    except (FileNotFoundError, ValueError):
        return None
    return DataManifest(name, storage.read_folder(place), facts)
