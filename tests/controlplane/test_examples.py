"""Every example becomes a PyTorchJob that the real webhook accepts; so does every shape of job that we render."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from trainrun_api.manifest import load_manifest
from trainrun_operator.core.pytorchjob import render

from tests.controlplane.api import JOBS
from tests.controlplane.control_plane import ROOT
from tests.controlplane.queue import QUEUE_LABEL, Queue
from tests.controlplane.stage import Stage

EXAMPLES = sorted(ROOT.glob("examples/**/*.yaml"))
GOLDEN = sorted(ROOT.glob("tests/operator/golden/*.job.yaml"))


def furnish(stage: Stage, path: Path) -> None:
    """What a real cluster of the example's kind has: its claims, and nodes with the labels and devices it asks for."""
    run = load_manifest(path)
    run["metadata"] |= {"namespace": stage.namespace, "uid": "u"}
    replicas = run["spec"]["workers"]["replicas"]
    pod = render(run, 0, (), replicas)["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    room = pod["containers"][0].get("resources", {}).get("requests", {})
    for number in range(replicas):
        name = f"{stage.node_names[0]}-{number}"
        stage.nodes.add(name, pod.get("nodeSelector"), room)
        stage.node_names.append(name)
    for volume in pod["volumes"]:
        if "persistentVolumeClaim" in volume:
            claim(stage, volume["persistentVolumeClaim"]["claimName"])


def claim(stage: Stage, name: str) -> None:
    """A claim that is bound."""
    common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = f"{stage.namespace}-{name}"
    owner = {"namespace": stage.namespace, "name": name}
    size = {"storage": "1Gi"}
    stage.api.create("/api/v1/persistentvolumes", {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume},
        "spec": {**common, "capacity": size, "hostPath": {"path": "/nowhere"}, "claimRef": owner},
    })  # fmt: skip
    stage.api.create(f"/api/v1/namespaces/{stage.namespace}/persistentvolumeclaims", {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {**common, "resources": {"requests": size}, "volumeName": volume},
    })  # fmt: skip


def run_example(stage: Stage, path: Path) -> None:
    """Applied with --dry-run=server, then for real, to its end, stage by stage; the queue that it names admits it."""
    furnish(stage, path)
    manifest = load_manifest(path)
    queue = manifest["metadata"].get("labels", {}).get(QUEUE_LABEL, "none")
    attempts = range(len(manifest["spec"].get("stages") or ["train"]))
    with stage.operator(), Queue(stage.api, stage.namespace, queue, slots=1):
        name = stage.apply(path, dry_run=True)
        assert stage.jobs(name) == []
        stage.apply(path)
        wanted = stage.run(name)["spec"]["workers"]["replicas"]
        for attempt in attempts:
            pods = stage.wait_running(name, attempt)
            assert stage.jobs(name)[-1]["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == wanted
            stage.trainers.finish(pods)
        stage.wait_status(name, phase="Succeeded")
        assert stage.attempts(name) == [(attempt, "Done") for attempt in attempts]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_example_runs(stage: Stage, path: Path) -> None:
    """Its job passes the real webhook."""
    run_example(stage, path)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_rendered_job_passes_the_webhook(stage: Stage, path: Path) -> None:
    """Strictly: no field of ours is unknown to PyTorchJob."""
    job = yaml.safe_load(path.read_text())
    job["metadata"]["namespace"] = stage.namespace
    stage.api.create(f"{JOBS}/namespaces/{stage.namespace}/pytorchjobs?dryRun=All&fieldValidation=Strict", job)
