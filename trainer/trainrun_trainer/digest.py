"""`state_digest`: one hash of weights, optimizer state and counters, whatever the sharding.

Each row (index of dimension 0) is hashed where it lies; the rows' hashes, in order, make the tensor's hash;
the tensors' hashes, in name order, make the digest. Only row hashes travel between ranks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import xxhash

from trainrun_trainer.ranks import Ranks

RAW_ROW_BYTES = 16
"""Rows up to this size are their own hash (vectors such as norm weights)."""


@dataclass(frozen=True)
class Piece:
    """Rows of one tensor on this rank."""

    name: str
    first_row: int
    local: torch.Tensor


def state_digest(ranks: Ranks, pieces: Iterable[Piece], counters: Mapping[str, Any]) -> str:
    """The digest, on every rank. `pieces` must hold each row of each tensor once over all ranks."""
    mine = [(p.name, p.first_row, _row_hashes(p.local)) for p in pieces if p.local.numel()]
    everyone = sorted(piece for rank in ranks.gather(mine) for piece in rank)
    total = xxhash.xxh3_128(json.dumps(dict(counters), sort_keys=True).encode())
    for name, first_row, hashes in everyone:
        if first_row == 0:
            total.update(b"\0" + name.encode() + b"\0")
        total.update(hashes)
    return total.hexdigest()


def _row_hashes(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous()
    rows = flat.reshape(flat.shape[0], -1).view(torch.uint8).numpy() if flat.ndim else flat.reshape(1, 1).numpy()
    if rows.shape[1] <= RAW_ROW_BYTES:
        return bytes(rows.tobytes())
    return b"".join([xxhash.xxh3_64_digest(row) for row in rows])
