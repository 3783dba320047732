"""Reads the folders of stages into frozen values. What is missing or half written is left out, never guessed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from trainrun_api import lineage
from trainrun_api.contract import CheckpointLayout
from trainrun_api.evaluation import RESULT
from trainrun_api.page.words import parse_time
from trainrun_api.store_files import read_claims, read_metrics, read_object

from trainrun_trainer.base import LINEAGE, read_header
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.evaluating.curve import CURVE

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """One stage and everything that the page tells of it."""

    name: str
    record: Record
    """stage.json, or empty."""
    result: Path | None
    steps: tuple[Record, ...]
    """One line per step of a train stage, in order; may hold an `eval`."""
    num_diverged: int
    """Steps that ran twice with two losses."""
    evaluation: Record
    """evaluation.json, or empty."""
    curve: Record
    """curve.json of checkpoints or of a merge's sweep, or empty."""
    lineage: Record
    """lineage.json of the model that was made, or empty."""
    data: Record
    """manifest.json of the prepared text that it read or made, or empty."""
    trained_parameters: int | None
    all_parameters: int | None

    @property
    def kind(self) -> str:
        """prepare, train, evaluate, consolidate, merge or report."""
        return str(self.record.get("kind") or "unknown")

    @property
    def is_done(self) -> bool:
        """Its record says so."""
        return self.record.get("state") == "done"

    @property
    def config(self) -> Record:
        """As resolved: references are folders."""
        return _mapping(self.record.get("config"))

    @property
    def started_at(self) -> datetime | None:
        """The begin of its first attempt."""
        return parse_time(self.record.get("started_at"))

    @property
    def ended_at(self) -> datetime | None:
        """None while it runs."""
        return parse_time(self.record.get("ended_at"))

    @property
    def seconds(self) -> float | None:
        """Of its attempts, as far as they told their end; what lay between them is not work."""
        told = self.record.get("seconds")
        return float(told) if told else None

    @property
    def num_steps(self) -> int | None:
        """Of training."""
        return int(self.steps[-1]["step"]) if self.steps else None

    @property
    def tokens(self) -> int | None:
        """Of all rows that were read in training."""
        return next((int(line["tokens"]) for line in reversed(self.steps) if line.get("tokens") is not None), None)

    @property
    def step_seconds(self) -> float | None:
        """Of the median optimizer step, its data included; nothing else that a stage does."""
        times = [_mapping(line.get("seconds_by_class")) for line in self.steps if line.get("loss") is not None]
        sums = [float(of["step"]) + float(of.get("data", 0.0)) for of in times if "step" in of]
        return median(sums) if sums else None

    @property
    def rows_per_second(self) -> float | None:
        """Samples that a median step reads, over its time."""
        rows, seconds = self.config.get("global_batch_rows"), self.step_seconds
        return float(rows) / seconds if rows and seconds else None

    @property
    def losses(self) -> list[tuple[float, float]]:
        """(step, training loss)."""
        return finite((line["step"], line.get("loss")) for line in self.steps)

    @property
    def held_out(self) -> dict[str, list[tuple[float, float]]]:
        """Source -> (step, held-out perplexity while it was trained)."""
        found: dict[str, list[tuple[float, float]]] = {}
        for line in self.steps:
            for source, of in _mapping(line.get("eval")).items():
                found.setdefault(source, []).extend(finite([(line["step"], _mapping(of).get("perplexity"))]))
        return {source: points for source, points in sorted(found.items()) if points}


def read_stages(root: Path, names: Iterable[str]) -> list[Stage]:
    """The named stages below `root`, in their order; one without a record is there with an empty one."""
    return [_read(root, name) for name in names]


def finite(points: Iterable[tuple[Any, Any]]) -> list[tuple[float, float]]:
    """Those that can be drawn."""
    return [
        (float(x), float(y))
        for x, y in points
        if isinstance(x, (int, float)) and isinstance(y, (int, float)) and math.isfinite(x) and math.isfinite(y)
    ]


def _read(root: Path, name: str) -> Stage:
    record = read_object(root / CheckpointLayout.STAGES / name / CheckpointLayout.STAGE_RECORD)
    folder = root / str(record["folder"]) if record.get("folder") else None
    result = root / str(record["result"]) if record.get("result") else None
    steps, num_diverged = _steps(folder) if folder is not None and record.get("kind") == "train" else ((), 0)
    made = read_object(result / LINEAGE) if result is not None else {}
    trained, whole = _parameters(result, made) if result is not None else (None, None)
    return Stage(
        name=name, record=record, result=result, steps=steps, num_diverged=num_diverged,
        evaluation=read_object(folder / RESULT) if folder is not None else {},
        curve=read_object(folder / CURVE) if folder is not None else {},
        lineage=made, data=_data(root, record), trained_parameters=trained, all_parameters=whole,
    )  # fmt: skip


def _data(root: Path, record: Record) -> Record:
    place = record.get("data")
    return read_object(root / str(place) / CheckpointLayout.MANIFEST) if place else {}


def _steps(store: Path) -> tuple[tuple[Record, ...], int]:
    try:
        merged, diverged = lineage.merge_metrics(read_claims(store), read_metrics(store))
    except (ValueError, KeyError):
        return (), 0
    return tuple(merged), len({one["step"] for one in diverged})


def _parameters(result: Path, made: Record) -> tuple[int | None, int | None]:
    """(in the result's files, in the whole model): they differ for adapters."""
    trained = _elements(result)
    base = _mapping(made.get("base")).get("path")
    if not (result / "adapter_config.json").exists() or not isinstance(base, str):
        return trained, trained
    below = _elements(Path(base))
    return trained, None if trained is None or below is None else below + trained


def _elements(folder: Path) -> int | None:
    """Numbers in a folder's safetensors files, by their headers."""
    total = None
    for path in folder.glob("*.safetensors"):
        try:
            entries = read_header(path)[1]
        except (OSError, ConfigError):
            return None
        total = (total or 0) + sum(math.prod(entry.shape) for entry in entries)
    return total


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
