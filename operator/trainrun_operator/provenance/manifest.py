"""The run manifest: configuration, image, versions, data, parents, results and cost of a run, as JSON.

`spec` alone is enough to clone the run; everything else says whether the clone had the same inputs and came out alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from trainrun_api.contract import CheckpointLayout
from trainrun_api.stage_config import STAGE_CONFIGS
from trainrun_api.stages import own_config, spec_of, stages_of
from trainrun_api.store_files import newest_committed, read_object
from trainrun_api.structure import without_nulls
from trainrun_api.v1alpha1 import StageSpec, TrainingRunSpec, TrainingRunStatus

from trainrun_operator.cluster import Object
from trainrun_operator.core.times import from_text, seconds_between
from trainrun_operator.planner.hardware import MACHINES
from trainrun_operator.stores import stage_records, stores_of

SCHEMA = 1
KIND = "TrainRunManifest"
HOUR = 3600.0


def run_manifest(run: Object, store: Path, folder: str | None = None) -> dict[str, Any]:
    """Of a TrainingRun as the API serves it, and its checkpoint.path as seen from here. What is not there is absent.

    `folder` is where relative paths of the spec begin, in local mode.
    """
    metadata, spec = run["metadata"], without_nulls(run["spec"])
    status = TrainingRunStatus.model_validate(run.get("status") or {})
    checkpoints = [(one.stage, newest) for one in stores_of(store) if (newest := _newest_checkpoint(one.path))]
    typed = TrainingRunSpec.model_validate(spec)
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "run": {name: metadata[name] for name in ("name", "namespace", "uid", "creationTimestamp") if name in metadata},
        "folder": folder,
        "spec": spec,
        "resolved": {stage.name: _resolved(typed, stage) for stage in stages_of(typed)},
        "image": sorted({attempt.image for attempt in status.attempts if attempt.image}),
        "versions": checkpoints[-1][1].get("versions", {}) if checkpoints else {},
        "numerics": {stage: newest.get("numerics") for stage, newest in checkpoints},
        "data": [_data(path) for path in sorted(store.glob(f"{CheckpointLayout.DATA}/*/{CheckpointLayout.MANIFEST}"))],
        "seeds": {stage: (newest.get("config") or {}).get("seed") for stage, newest in checkpoints},
        "parents": status.parent.model_dump(mode="json", by_alias=True) if status.parent else None,
        "results": _results(status, store, checkpoints),
        "cost": _cost(typed, status),
    }


def _resolved(spec: TrainingRunSpec, stage: StageSpec) -> Any:
    """The whole configuration with its defaults, as this version fills them in."""
    own = STAGE_CONFIGS.get(stage.kind)
    config: BaseModel | None = spec_of(spec, stage.name).config
    if own is not None:
        config = own.model_validate(own_config(spec, stage))
    return config.model_dump(mode="json") if config is not None else None


def _newest_checkpoint(store: Path) -> dict[str, Any]:
    try:
        newest = newest_committed(store)
    except ValueError:  # a claim is missing: its steps are nobody's, and the rest of the manifest is worth having
        newest = None
    return {} if newest is None else read_object(newest / CheckpointLayout.MANIFEST)


def _data(path: Path) -> dict[str, Any]:
    """Hashes that tell prepared data and its tokenizer from any other."""
    facts = read_object(path)
    files: Mapping[str, Mapping[str, Any]] = facts.get("files") or {}
    return {
        "data_hash": facts.get("data_hash"),
        "sources": {name: source.get("content_xxh3") for name, source in (facts.get("sources") or {}).items()},
        "tokenizer": {name: of.get("xxh3") for name, of in files.items() if name.startswith("tokenizer/")},
    }


def _results(
    status: TrainingRunStatus, store: Path, checkpoints: Iterable[tuple[str, Mapping[str, Any]]]
) -> dict[str, Any]:
    told = ("step", "state_digest", "rows_digest", "tokens")
    stages = [
        {name: record.get(name) for name in ("name", "kind", "input", "result", "outputs")}
        for record in stage_records(store)
        if record.get("state") == "done"
    ]
    return {
        "result": status.result,
        "ended_at": status.ended_at,
        "restarts": status.restarts,
        "attempts": (status.attempt if status.attempt is not None else -1) + 1,
        "loss": status.progress.loss,
        "checkpoints": [
            {"stage": stage, **{name: newest[name] for name in told if name in newest}} for stage, newest in checkpoints
        ],
        "export": read_object(store / CheckpointLayout.EXPORT / CheckpointLayout.MANIFEST).get("files"),
        "stages": stages,
    }


def _cost(spec: TrainingRunSpec, status: TrainingRunStatus) -> dict[str, Any]:
    """Machine hours of the attempts that status remembers, and dollars where the catalogue knows a price."""
    hours = 0.0
    for attempt in status.attempts:
        begun, ended = from_text(attempt.scheduled_at or attempt.started_at), from_text(attempt.ended_at)
        if begun is not None and ended is not None:
            hours += seconds_between(begun, ended) / HOUR * ((attempt.replicas or 1) + attempt.spares)
    machine = MACHINES.get(spec.workers.instance_type or "")
    price = machine.price if machine is not None else None
    return {
        "machine_hours": round(hours, 4),
        "attempts_counted": len(status.attempts),
        "instance_type": spec.workers.instance_type,
        "usd": round(hours * price.usd_per_hour, 2) if price is not None else None,
        "price": f"{price.usd_per_hour} USD an hour, {price.source}" if price is not None else None,
        "ettr": status.goodput.ettr,
        "seconds_by_class": status.goodput.seconds_by_class,
    }
