"""Every example becomes a PyTorchJob that the real webhook accepts; so does every shape of job that we render."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.controlplane.api import JOBS
from tests.controlplane.control_plane import ROOT
from tests.controlplane.stage import Stage
from tests.controlplane.waiting import wait_for

EXAMPLES = sorted(ROOT.glob("examples/**/*.yaml"))
GOLDEN = sorted(ROOT.glob("tests/operator/golden/*.job.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_example_is_applied_and_gets_its_job(stage: Stage, path: Path) -> None:
    """As `kubectl apply --dry-run=server`, and for real."""
    with stage.operator():
        name = stage.apply(path, dry_run=True)
        assert stage.jobs(name) == []
        stage.apply(path)
        job = wait_for(lambda: stage.jobs(name), "its job", seen=lambda: stage.story(name))[0]
        wanted = stage.run(name)["spec"]["workers"]["replicas"]
        assert job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == wanted
        wait_for(lambda: len(stage.pods(name)) == wanted, "its pods", seen=lambda: stage.story(name))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_rendered_job_passes_the_webhook(stage: Stage, path: Path) -> None:
    """Strictly: no field of ours is unknown to PyTorchJob."""
    job = yaml.safe_load(path.read_text())
    job["metadata"]["namespace"] = stage.namespace
    stage.api.create(f"{JOBS}/namespaces/{stage.namespace}/pytorchjobs?dryRun=All&fieldValidation=Strict", job)
