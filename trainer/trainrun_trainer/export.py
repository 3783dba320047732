"""The last act of a successful run: `export/`, a folder that plain transformers (or peft) loads.

Config, tokenizer, safetensors, lineage, and a manifest last: without it the folder is made again from the
start, so a crash in the middle costs only time.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch.distributed.tensor import DTensor
from trainrun_api.contract import SCHEMA, CheckpointLayout

from trainrun_trainer.base import INDEX, LINEAGE
from trainrun_trainer.claims import Claim, read_claims, refuse_if_fenced
from trainrun_trainer.errors import StorageRefused
from trainrun_trainer.families import FAMILIES
from trainrun_trainer.parallel import Shard
from trainrun_trainer.ranks import Ranks
from trainrun_trainer.storage import Storage

MANIFEST = f"{CheckpointLayout.EXPORT}/{CheckpointLayout.MANIFEST}"


@dataclass(frozen=True)
class Exported:
    """What the lineage of an export says."""

    step: int
    state_digest: str
    data_hash: str
    config: dict[str, Any]
    parent: dict[str, Any] | None
    """Lineage of the pretrained model, if a run of ours made it."""
    base: dict[str, Any] | None
    """Of adapters: the model that they were trained on."""


@dataclass(frozen=True)
class TensorFile:
    """One safetensors file, and what is in it under which names."""

    name: str
    tensors: list[tuple[str, Shard]]


@dataclass(frozen=True)
class Content:
    """Files of an export besides lineage and manifest."""

    tensor_files: list[TensorFile]
    texts: dict[str, bytes]


def whole_model(model: Any, shards: Sequence[Shard], tokenizer_folder: Path, max_shard_bytes: int) -> Content:
    """A model folder: sharded tensors under the names that Hugging Face's files have, index, config, tokenizer."""
    renamed = FAMILIES[model.config.model_type].saved_names
    files = _plan_files([(renamed.get(s.name, s.name), s) for s in shards], max_shard_bytes)
    index = {
        "metadata": {"total_size": sum(_num_bytes(shard) for file in files for _, shard in file.tensors)},
        "weight_map": {name: file.name for file in files for name, _ in file.tensors},
    }
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__.removeprefix("FSDP")]
    texts = {INDEX: json.dumps(index, indent=1).encode(), "config.json": config.to_json_string().encode()}
    return Content(files, texts | tokenizer_files(tokenizer_folder))


def tokenizer_files(folder: Path) -> dict[str, bytes]:
    """All files of the prepared tokenizer."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def export(ranks: Ranks, storage: Storage, claim: Claim, content: Content, exported: Exported) -> None:
    """Write `export/` unless this very state is there already. Collective; files are rank 0's.

    Raises StorageRefused if it cannot be written: the checkpoint stays, a new attempt exports again.
    """
    if ranks.decide(lambda: _is_there(storage, exported)):
        return
    ranks.decide(lambda: _attempt(lambda: _begin(storage, claim)))
    for file in content.tensor_files:
        tensors = dict(_gathered(file.tensors, keep=ranks.rank == 0))
        ranks.decide(lambda name=file.name, held=tensors: _attempt(lambda: _put_tensors(storage, name, held)))  # type: ignore[misc]
    ranks.decide(lambda: _attempt(lambda: _finish(storage, claim, content.texts, exported)))


def _is_there(storage: Storage, exported: Exported) -> bool:
    try:
        found = json.loads(storage.get(MANIFEST))
    except (FileNotFoundError, ValueError):
        return False
    return bool(found.get("state_digest") == exported.state_digest)


def _attempt(act: Any) -> None:
    try:
        act()
    except OSError as error:
        raise StorageRefused(f"export/ could not be written: {error}") from error


def _begin(storage: Storage, claim: Claim) -> None:
    refuse_if_fenced(storage, claim)
    storage.delete(MANIFEST)
    storage.delete(CheckpointLayout.EXPORT)


def _plan_files(named: Sequence[tuple[str, Shard]], max_shard_bytes: int) -> list[TensorFile]:
    parts: list[list[tuple[str, Shard]]] = [[]]
    filled = 0
    for name, shard in named:
        size = _num_bytes(shard)
        if parts[-1] and filled + size > max_shard_bytes:
            parts.append([])
            filled = 0
        parts[-1].append((name, shard))
        filled += size
    total = len(parts)
    return [TensorFile(f"model-{i:05d}-of-{total:05d}.safetensors", part) for i, part in enumerate(parts, start=1)]


def _num_bytes(shard: Shard) -> int:
    return shard.whole.numel() * shard.whole.element_size()


def _gathered(named: Sequence[tuple[str, Shard]], keep: bool) -> Iterator[tuple[str, torch.Tensor]]:
    for name, shard in named:
        whole = shard.whole.detach()
        full = whole.full_tensor() if isinstance(whole, DTensor) else whole
        if keep:
            yield name, full.cpu().contiguous()


def _put_tensors(storage: Storage, name: str, tensors: dict[str, torch.Tensor]) -> None:
    storage.put(f"{CheckpointLayout.EXPORT}/{name}", to_safetensors(tensors, metadata={"format": "pt"}))


def lineage_of(folder: Path) -> dict[str, Any] | None:
    """Of an export of ours; None for a model from elsewhere."""
    path = folder / LINEAGE
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found


def _finish(storage: Storage, claim: Claim, texts: dict[str, bytes], exported: Exported) -> None:
    lineage = {
        "schema": SCHEMA, "step": exported.step, "state_digest": exported.state_digest, "data_hash": exported.data_hash,
        "run_uid": claim.owner.run_uid, "claims": read_claims(storage), "config": exported.config,
        "parent": exported.parent, "base": exported.base,
    }  # fmt: skip
    for name, text in {**texts, LINEAGE: json.dumps(lineage, indent=1).encode()}.items():
        storage.put(f"{CheckpointLayout.EXPORT}/{name}", text)
    written = storage.list(CheckpointLayout.EXPORT)
    facts = {name: storage.hash(f"{CheckpointLayout.EXPORT}/{name}") for name in written}
    refuse_if_fenced(storage, claim)
    body = {"schema": SCHEMA, "step": exported.step, "state_digest": exported.state_digest, "files": facts}
    storage.put(MANIFEST, json.dumps(body, indent=1).encode())
