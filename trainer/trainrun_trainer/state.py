"""TrainState: counters only. Weights and optimizer state are tensors, addressed by name elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import xxhash


@dataclass(frozen=True)
class TrainState:
    """How far the run is."""

    step: int = 0
    """Completed optimizer steps."""
    tokens: int = 0
    """Tokens of all rows read since step 0."""
    rows_digest: str = "0" * 16
    """Proof of which rows were read, in order, since step 0."""

    def after_step(self, tokens: int, rows_sum: int) -> TrainState:
        """State one optimizer step later; `rows_sum` stands for the ids of the rows that were read."""
        chained = xxhash.xxh3_64_hexdigest(f"{self.rows_digest}:{rows_sum:016x}".encode())
        return TrainState(self.step + 1, self.tokens + tokens, chained)

    def counters(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)

    @classmethod
    def from_counters(cls, raw: Mapping[str, Any]) -> TrainState:
        """From a manifest."""
        return cls(int(raw["step"]), int(raw["tokens"]), str(raw["rows_digest"]))
