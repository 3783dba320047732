"""The last act of a successful run: `export/`, a folder that plain transformers loads.

Config, tokenizer, sharded safetensors with index, lineage, and a manifest last: without it the folder is
made again from the start, so a crash in the middle costs only time.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch.distributed.tensor import DTensor
from trainrun_api.contract import SCHEMA, CheckpointLayout

from trainrun_trainer.claims import Claim, read_claims, refuse_if_fenced
from trainrun_trainer.errors import StorageRefused
from trainrun_trainer.parallel import Shard
from trainrun_trainer.ranks import Ranks
from trainrun_trainer.storage import Storage

MANIFEST = f"{CheckpointLayout.EXPORT}/{CheckpointLayout.MANIFEST}"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Exported:
    """What the lineage of an export says."""

    step: int
    state_digest: str
    data_hash: str
    config: dict[str, Any]


def export_model(
    ranks: Ranks, storage: Storage, claim: Claim, model: Any, shards: Sequence[Shard], tokenizer_folder: Any,
    max_shard_bytes: int, exported: Exported,
) -> None:  # fmt: skip
    """Write `export/` unless this very state is there already. Collective; files are rank 0's.

    Raises StorageRefused if it cannot be written: the checkpoint stays, a new attempt exports again.
    """
    if ranks.decide(lambda: _is_there(storage, exported)):
        return
    ranks.decide(lambda: _attempt(lambda: _begin(storage, claim)))
    files = _plan_files(shards, max_shard_bytes)
    for file_name, part in files:
        tensors = dict(_gathered(part, keep=ranks.rank == 0))
        ranks.decide(lambda name=file_name, held=tensors: _attempt(lambda: _put_tensors(storage, name, held)))  # type: ignore[misc]
    ranks.decide(lambda: _attempt(lambda: _finish(storage, claim, model, tokenizer_folder, files, exported)))


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


def _plan_files(shards: Sequence[Shard], max_shard_bytes: int) -> list[tuple[str, list[Shard]]]:
    parts: list[list[Shard]] = [[]]
    filled = 0
    for shard in shards:
        size = shard.whole.numel() * shard.whole.element_size()
        if parts[-1] and filled + size > max_shard_bytes:
            parts.append([])
            filled = 0
        parts[-1].append(shard)
        filled += size
    total = len(parts)
    return [(f"model-{i:05d}-of-{total:05d}.safetensors", part) for i, part in enumerate(parts, start=1)]


def _gathered(shards: Sequence[Shard], keep: bool) -> Iterator[tuple[str, torch.Tensor]]:
    for shard in shards:
        whole = shard.whole.detach()
        full = whole.full_tensor() if isinstance(whole, DTensor) else whole
        if keep:
            yield shard.name, full.cpu().contiguous()


def _put_tensors(storage: Storage, name: str, tensors: dict[str, torch.Tensor]) -> None:
    storage.put(f"{CheckpointLayout.EXPORT}/{name}", to_safetensors(tensors, metadata={"format": "pt"}))


def _finish(
    storage: Storage, claim: Claim, model: Any, tokenizer_folder: Any, files: list[tuple[str, list[Shard]]],
    exported: Exported,
) -> None:  # fmt: skip
    sizes = [s.whole.numel() * s.whole.element_size() for _, part in files for s in part]
    index = {
        "metadata": {"total_size": sum(sizes)},
        "weight_map": {shard.name: name for name, part in files for shard in part},
    }
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__.removeprefix("FSDP")]
    lineage = {
        "schema": SCHEMA, "step": exported.step, "state_digest": exported.state_digest, "data_hash": exported.data_hash,
        "run_uid": claim.owner.run_uid, "claims": read_claims(storage), "config": exported.config,
    }  # fmt: skip
    texts = {INDEX: json.dumps(index, indent=1), "lineage.json": json.dumps(lineage, indent=1)}
    for name, text in texts.items():
        storage.put(f"{CheckpointLayout.EXPORT}/{name}", text.encode())
    storage.put(f"{CheckpointLayout.EXPORT}/config.json", config.to_json_string().encode())
    for path in sorted(tokenizer_folder.iterdir()):
        storage.put(f"{CheckpointLayout.EXPORT}/{path.name}", path.read_bytes())
    written = storage.list(CheckpointLayout.EXPORT)
    facts = {name: storage.hash(f"{CheckpointLayout.EXPORT}/{name}") for name in written}
    refuse_if_fenced(storage, claim)
    body = {"schema": SCHEMA, "step": exported.step, "state_digest": exported.state_digest, "files": facts}
    storage.put(MANIFEST, json.dumps(body, indent=1).encode())
