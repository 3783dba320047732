"""metrics.jsonl: exactly one line per optimizer step of each training stage, merged along the claim chain.

Rank 0 of each worker group appends to its own `metrics/c<k>.jsonl`; which of those lines count is decided by the
claims (`trainrun_api.lineage`), the same way for the trainer, for this file and for the report.
"""

from __future__ import annotations

import json
import time
from typing import Any

from trainrun_api.contract import CheckpointLayout
from trainrun_api.lineage import merge_metrics
from trainrun_api.store_files import read_claims, read_metrics

from trainrun_operator.local.disk import read_lines
from trainrun_operator.local.layout import RunDir
from trainrun_operator.stores import Store, stores_of

REST_FACTOR = 20
"""A merge that took t seconds is followed by 20 t of rest: at most 5% of a core, however long the run is."""
SHORTEST_REST_SECONDS = 1.0


class MetricsFile:
    """Keeps `metrics.jsonl` current; cheap when nothing has changed."""

    def __init__(self, run_dir: RunDir) -> None:
        self._dir = run_dir
        self._seen: tuple[Any, ...] = ()
        self._next_at = 0.0
        self._told = {
            (line.get("stage"), line["step"], line["claim"])
            for line in read_lines(run_dir.events)
            if line.get("reason") == "ReplayDiverged"
        }

    def refresh(self, *, is_final: bool = False) -> list[dict[str, Any]]:
        """Merge if something is new; returns a record for each replay that diverged and was not told yet."""
        moment = time.monotonic()
        if moment < self._next_at and not is_final:
            return []
        stores = stores_of(self._dir.checkpoints)
        seen = tuple(_size(store) for store in stores)
        if seen == self._seen:
            return []
        merged: list[dict[str, Any]] = []
        diverged: list[dict[str, Any]] = []
        try:
            for store in stores:
                of_stage, again = _merged(store)
                merged += of_stage
                diverged += again
        except ValueError:  # a claim is being written just now; the next refresh sees it whole
            return []
        self._write([line for line in merged if line.get("loss_hex") is not None])
        self._seen = seen
        self._next_at = moment + max(SHORTEST_REST_SECONDS, REST_FACTOR * (time.monotonic() - moment))
        return self._news(diverged)

    def _write(self, lines: list[dict[str, Any]]) -> None:
        temporary = self._dir.metrics.with_name(f".{self._dir.metrics.name}")
        with open(temporary, "w") as file:
            file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        temporary.replace(self._dir.metrics)

    def _news(self, diverged: list[dict[str, Any]]) -> list[dict[str, Any]]:
        news = []
        for replay in diverged:
            if (replay.get("stage"), replay["step"], replay["claim"]) in self._told:
                continue
            self._told.add((replay.get("stage"), replay["step"], replay["claim"]))
            message = (
                f"step {replay['step']} ran twice with different losses: {replay['loss_hex']} under claim "
                f"{replay['claim']}, {replay['kept_loss_hex']} under claim {replay['kept_claim']}, which counts"
            )
            record = {"type": "event", "severity": "Warning", "reason": "ReplayDiverged", "message": message}
            place: dict[str, Any] = {name: replay[name] for name in ("stage", "step", "claim") if name in replay}
            news.append({**record, **place})
        return news


def _size(store: Store) -> tuple[Any, ...]:
    claims = list((store.path / CheckpointLayout.CLAIMS).glob("*.json"))
    metrics = sorted((store.path / CheckpointLayout.METRICS).glob("c*.jsonl"))
    return (store, len(claims), *((path.name, path.stat().st_size) for path in metrics))


def _merged(store: Store) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Lines and diverged replays of one store, with the name of its stage if it has one."""
    stage: dict[str, Any] = {"stage": store.stage} if store.stage else {}
    merged, diverged = merge_metrics(read_claims(store.path), read_metrics(store.path))
    return [{**stage, **line} for line in merged], [{**stage, **replay} for replay in diverged]
