"""The checkpoint stores of a run, as files: checkpoint.path itself, or one below it for each training stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from trainrun_api.contract import CheckpointLayout
from trainrun_api.stages import TRAIN
from trainrun_api.store_files import read_object


class Store(NamedTuple):
    """One place with claims, checkpoints and metrics."""

    stage: str
    """Empty: the run has no stages with folders of their own."""
    path: Path


def stage_records(root: Path) -> list[dict[str, Any]]:
    """What stages wrote about themselves, in the order in which they began. Damaged records are left out."""
    paths = (root / CheckpointLayout.STAGES).glob(f"*/{CheckpointLayout.STAGE_RECORD}")
    found = [record for path in paths if (record := read_object(path)).get("folder")]
    return sorted(found, key=lambda record: (str(record.get("started_at")), str(record.get("name"))))


def stores_of(root: Path) -> list[Store]:
    """At least one; the last is the one that is trained in, or was."""
    stages = [Store(str(r["name"]), root / str(r["folder"])) for r in stage_records(root) if r.get("kind") == TRAIN]
    return stages or [Store("", root)]
