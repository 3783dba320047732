"""A run made again from a run manifest: the same spec under another name, with checkpoints of its own."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from trainrun_api.contract import GROUP
from trainrun_api.manifest import API_VERSION
from trainrun_api.manifest import KIND as RUN_KIND
from trainrun_api.validate import validate

from trainrun_operator.cluster import Object
from trainrun_operator.errors import LocalModeError
from trainrun_operator.provenance.manifest import KIND, SCHEMA

CLONED_FROM = f"{GROUP}/cloned-from"
"""Annotation: name and uid of the run."""

_OF_ITS_TIME = ("suspend", "restartToken")
"""Requests to a run that lives."""


class BadManifestError(LocalModeError):
    """The file is no run manifest, or this version cannot run it again."""


def load(file: Path) -> dict[str, Any]:
    """A run manifest. Raises BadManifestError."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadManifestError(f"{file} cannot be read ({error}); give the manifest.json of a run") from error
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise BadManifestError(f"{file} is no run manifest; give the manifest.json of a run, not its TrainingRun")
    if found.get("schema") != SCHEMA:
        raise BadManifestError(f"{file} has schema={found.get('schema')}; this version reads {SCHEMA}")
    return found


def cloned(manifest: dict[str, Any], name: str | None, path: str | None) -> Object:
    """The TrainingRun; the image is the very one that ran, where its digest is known. Raises BadManifestError."""
    run, spec = manifest["run"], copy.deepcopy(manifest["spec"])
    new = name or f"{run['name']}-clone"
    for field in _OF_ITS_TIME:
        spec.pop(field, None)
    images = [image for image in manifest["image"] if "@sha256:" in image]
    if len(images) == 1:
        spec["image"] = images[0]
    spec["checkpoint"]["path"] = path or _beside(str(spec["checkpoint"]["path"]), str(run["name"]), new)
    metadata = {"name": new, "annotations": {CLONED_FROM: f"{run['name']} {run.get('uid', '')}".strip()}}
    if "namespace" in run:
        metadata["namespace"] = run["namespace"]
    clone: Object = {"apiVersion": API_VERSION, "kind": RUN_KIND, "metadata": metadata, "spec": spec}
    problems = validate(clone)
    if problems:
        raise BadManifestError("; ".join(problem.message for problem in problems))
    return clone


def _beside(path: str, name: str, new: str) -> str:
    """The same place for another name."""
    path = path.rstrip("/")
    return f"{path.removesuffix(name)}{new}" if path.endswith(f"/{name}") else f"{path}-{new}"
