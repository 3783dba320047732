"""What rank 0 leaves beside the checkpoints: a line per step, and the times of the worker group's start."""

from __future__ import annotations

import json
from typing import Any

from trainrun_api.contract import CheckpointLayout

from trainrun_trainer.claims import Claim
from trainrun_trainer.logs import log
from trainrun_trainer.state import TrainState
from trainrun_trainer.step import Agreement
from trainrun_trainer.storage import Storage


class Metrics:
    """Appends to `metrics/c<k>.jsonl`; on ranks other than 0 it does nothing."""

    def __init__(self, storage: Storage, claim: Claim, is_writer: bool) -> None:
        self._storage, self._claim, self._is_writer = storage, claim, is_writer
        owner = claim.owner
        self._unwritten: list[str] = []
        self._has_lines = False
        self._who = {"attempt": owner.attempt, "generation": owner.generation, "claim": claim.k}

    def step(self, state: TrainState, agreed: Agreement, rate: float, seconds: dict[str, float]) -> None:
        """The step's line, in the file before the step's manifest can be."""
        self._append(
            {
                "step": state.step, "loss": agreed.loss, "loss_hex": agreed.loss.hex(), **self._who,
                "rows_digest": state.rows_digest, "grad_norm": agreed.grad_norm, "lr": rate, "tokens": state.tokens,
                "seconds_by_class": seconds,
            }
        )  # fmt: skip

    def evaluation(self, step: int, results: dict[str, dict[str, float]]) -> None:
        """Held-out results for the weights after `step`; a line of its own, merged by readers."""
        self._append({"step": step, "loss": None, "loss_hex": None, **self._who, "eval": results})

    def timeline(self, instants: dict[str, Any]) -> None:
        """Unix times of this group's start."""
        if self._is_writer:
            body = json.dumps({**self._who, **instants}).encode()
            try:
                self._storage.put(CheckpointLayout.timeline(self._claim.k), body)
            except OSError as error:
                log("timeline-not-written", message=str(error))

    def settle(self) -> None:
        """Make all lines durable, before a manifest is written. Raises OSError."""
        if self._is_writer:
            self._write()
            if self._has_lines:
                self._storage.settle(CheckpointLayout.metrics(self._claim.k))

    def _append(self, line: dict[str, Any]) -> None:
        if self._is_writer:
            self._unwritten.append(json.dumps(line, separators=(",", ":")) + "\n")
            try:
                self._write()
            except OSError as error:  # a full disk does not end training; the lines wait for the next one
                log("metrics-not-written", lines=len(self._unwritten), message=str(error))

    def _write(self) -> None:
        if self._unwritten:
            self._storage.append(CheckpointLayout.metrics(self._claim.k), "".join(self._unwritten).encode())
            self._unwritten.clear()
            self._has_lines = True
