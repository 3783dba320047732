"""Slots of packed rows for the model: tokens, targets, positions, and the ids that prove what was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xxhash
from trainrun_api.data_config import DataConfig

from trainrun_trainer.loss import IGNORED
from trainrun_trainer.order import RowOrder
from trainrun_trainer.packing import HELD_OUT, TRAIN, PackedRows
from trainrun_trainer.plan import Plan
from trainrun_trainer.prepared import DataManifest

U64_MASK = (1 << 64) - 1

SPARSE_SHARE = 0.9
"""With a target at no more than this share of its positions a batch's output layer computes only theirs; to pick nearly
all of them would cost what it saves."""


@dataclass(frozen=True)
class Slot:
    """One micro-batch. Shapes [rows, row_tokens]; T = row_tokens."""

    input_ids: torch.Tensor
    targets: torch.Tensor
    position_ids: torch.Tensor
    """Restart at 0 with each document: this alone isolates documents in attention."""
    rows_sum: int
    """Sum over rows of hash(place, stored row id), modulo 2^64: any split over ranks gives the same total."""
    learned: torch.Tensor | None = None
    """Places in the flattened batch that have a target [number of them]; None: all but a few have one."""


class TrainRows:
    """Training rows in the run's order."""

    def __init__(self, config: DataConfig, data: DataManifest, plan: Plan, seed: int, device: torch.device) -> None:
        self.plan, self.device = plan, device
        names = data.source_names
        weights = [config.mix.get(name, 0.0) if config.mix else 1.0 for name in names]
        self.sources = [open_rows(data, name, TRAIN) for name in names]
        self.order = RowOrder(weights, [source.num_rows for source in self.sources], seed)

    def slot(self, step: int, slot: int) -> Slot:
        """Rows of one slot of a step."""
        positions = self.plan.positions_of(step, slot)
        drawn = self.order.rows(positions)
        rows_sum = 0
        for position, (source, row) in zip(positions, drawn, strict=True):
            rows_sum += row_hash(position, *self.sources[source].stored_id(row))
        return make_slot([(self.sources[s], r) for s, r in drawn], self.device, rows_sum & U64_MASK)

    def num_targets(self, step: int) -> int:
        """Predicted tokens of the whole global batch; every rank computes it alone."""
        rows = self.plan.global_batch_rows
        drawn = self.order.rows(range((step - 1) * rows, step * rows))
        return sum(self.sources[source].num_targets(row) for source, row in drawn)


def open_rows(data: DataManifest, source: str, split: str) -> PackedRows:
    """Memory-map one split of one source."""
    return PackedRows(
        data.folder / source, split, data.split(source, split)["rows"], int(data.facts["config"]["row_tokens"])
    )


def open_held_out(data: DataManifest) -> dict[str, PackedRows]:
    """Held-out rows of each source, by name."""
    return {name: open_rows(data, name, HELD_OUT) for name in data.source_names}


def row_hash(position: int, source: int, row: int) -> int:
    """64 bits that stand for 'this row at this place'."""
    return xxhash.xxh3_64_intdigest(f"{position}:{source}:{row}".encode())


def make_slot(rows: Sequence[tuple[PackedRows, int]], device: torch.device, rows_sum: int = 0) -> Slot:
    """Stack rows; a segment's last token predicts nothing, positions restart with each segment.

    Of examples only the responses are predicted, masked by their place in the row and never by a token's id.
    """
    tokens = np.stack([source.tokens(row) for source, row in rows]).astype(np.int64)
    length = tokens.shape[1]
    targets = np.full_like(tokens, IGNORED)
    targets[:, :-1] = tokens[:, 1:]
    positions = np.empty_like(tokens)
    for i, (source, row) in enumerate(rows):
        starts = source.segments(row)[:, 1]
        targets[i, starts[1:] - 1] = IGNORED
        learned = source.learned(row)
        if learned is not None:
            is_learned = np.zeros(length + 1, bool)
            for start, end in learned:
                is_learned[start:end] = True
            targets[i, ~is_learned[1:]] = IGNORED
        lengths = np.diff(starts, append=length)
        positions[i] = np.arange(length) - np.repeat(starts, lengths)
    places = np.flatnonzero(targets != IGNORED)  # here, because a device would have to be waited for
    is_sparse = len(places) <= SPARSE_SHARE * targets.size
    return Slot(
        torch.from_numpy(tokens).to(device), torch.from_numpy(targets).to(device),
        torch.from_numpy(positions).to(device), rows_sum, torch.from_numpy(places).to(device) if is_sparse else None,
    )  # fmt: skip
