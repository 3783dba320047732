"""Held-out perplexity per source: document-masked, token-weighted over ranks, no training randomness."""

from __future__ import annotations

import math
from typing import Any

import torch

from trainrun_trainer import device as devices
from trainrun_trainer.errors import DataError
from trainrun_trainer.loss import IGNORED, loss_sum
from trainrun_trainer.model import predict
from trainrun_trainer.packing import PackedRows
from trainrun_trainer.ranks import Ranks
from trainrun_trainer.rows import make_slot


class HeldOut:
    """The held-out rows that each evaluation reads, in batches that do not depend on the ranks."""

    def __init__(self, sources: dict[str, PackedRows], max_rows: int, batch_rows: int, precision: str) -> None:
        self.sources, self.max_rows, self.batch_rows, self.precision = sources, max_rows, batch_rows, precision
        empty = sorted(name for name, rows in sources.items() if not rows.num_rows)
        if empty:
            raise DataError(
                f"config.eval is set, but data.held_out_share leaves no whole held-out row for {', '.join(empty)}; "
                "raise held_out_share, shorten data.row_tokens, add text, or leave eval out"
            )

    @property
    def num_rows(self) -> int:
        """Rows that one evaluation reads."""
        return sum(min(source.num_rows, self.max_rows) for source in self.sources.values())

    def evaluate(self, model: Any, ranks: Ranks) -> dict[str, dict[str, float]]:
        """{source: {loss, perplexity, tokens}}, equal on every rank."""
        names = sorted(self.sources)
        model.eval()
        with torch.no_grad():
            sums = [value for name in names for value in self._source(model, ranks, self.sources[name])]
        model.train()
        total = ranks.sum(sums)
        results = {}
        for i, name in enumerate(names):
            loss_total, tokens = total[2 * i], total[2 * i + 1]
            loss = loss_total / max(tokens, 1.0)
            results[name] = {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "tokens": int(tokens)}
        return results

    def _source(self, model: Any, ranks: Ranks, source: PackedRows) -> list[float]:
        rows = range(min(source.num_rows, self.max_rows))
        batches = [rows[i : i + self.batch_rows] for i in range(0, len(rows), self.batch_rows)]
        loss, tokens = 0.0, 0
        for turn in range(0, len(batches), ranks.world_size):
            # every rank runs every turn, because a sharded model's forward pass is collective
            mine = turn + ranks.rank
            batch = batches[min(mine, len(batches) - 1)]
            slot = make_slot([(source, row) for row in batch], ranks.device)
            with devices.compute_dtype(ranks.device, self.precision):
                logits, targets = predict(model, slot)
            if mine < len(batches):
                loss += float(loss_sum(logits, targets))
                tokens += int((targets != IGNORED).sum())
        return [loss, float(tokens)]
