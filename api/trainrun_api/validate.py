"""The verdict that the API server would give on a manifest, without a cluster: structure first, then the rules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainrun_api.chain import verdict
from trainrun_api.manifest import ManifestError, Problem, load_manifest
from trainrun_api.structure import without_nulls

__all__ = ["Problem", "validate", "validate_file", "validate_update"]


def validate_file(path: Path | str) -> list[Problem]:
    """Why the manifest in a file would be refused; empty when it would be taken."""
    try:
        manifest = load_manifest(Path(path))
    except ManifestError as error:
        return [error.problem]
    return validate(manifest)


def validate(manifest: Mapping[str, Any]) -> list[Problem]:
    """Why a new TrainingRun would be refused. Structural problems come alone: rules need a whole run."""
    return verdict(without_nulls(manifest))


def validate_update(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Problem]:
    """Why `new` would be refused as the next version of `old`."""
    return verdict(without_nulls(new), without_nulls(old))
