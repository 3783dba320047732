"""Objects that a neighbouring version stored: read with what they have, mended by their users, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from tests.api.manifests import good, merged
from tests.controlplane.api import Api, ApiError
from tests.controlplane.control_plane import ROOT
from tests.controlplane.stage import Stage
from tests.controlplane.waiting import wait_for

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@contextmanager
def looser_definition(stage: Stage) -> Iterator[None]:
    """While the block lasts the definition knows nothing of spec, as an older one might."""
    definition = yaml.safe_load((ROOT / "crds" / "trainrun.dev_trainingruns.yaml").read_text())
    name = definition["metadata"]["name"]
    versions = [dict(version) for version in definition["spec"]["versions"]]
    root = dict(versions[0]["schema"]["openAPIV3Schema"])
    root.pop("x-kubernetes-validations", None)
    spec = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    root["properties"] = {**root["properties"], "spec": spec}
    versions[0] = {**versions[0], "schema": {"openAPIV3Schema": root}}
    versions[0]["subresources"] = {"status": {}}
    older = {**definition, "spec": {**definition["spec"], "versions": versions}}
    stage.api.apply(f"{DEFINITIONS}/{name}", older)
    wait_for(lambda: is_taken(stage.api, stage.runs_path, {"spec": {"checkpoint": None}}), "the older definition")
    try:
        yield
    finally:
        stage.api.apply(f"{DEFINITIONS}/{name}", definition)
        wait_for(lambda: not is_taken(stage.api, stage.runs_path, {"spec": {"checkpoint": None}}), "the definition")


def is_taken(api: Api, path: str, patch: dict[str, Any]) -> bool:
    """Whether the API server would store the good manifest so changed."""
    manifest = merged(merged(good(), patch), {"metadata": {"namespace": None}})
    try:
        api.create(f"{path}?dryRun=All", manifest)
    except ApiError:
        return False
    return True


def test_a_stored_run_that_today_s_schema_refuses_is_told_and_mended(stage: Stage) -> None:
    """It lacks a field that is required now: Stalled, by name; an edit brings it to life."""
    with looser_definition(stage):
        stage.create_run("a", {"spec": {"checkpoint": None}})
    with stage.operator():
        condition = stage.wait_reason("a", "SpecUnworkable")
        assert "spec.checkpoint" in condition["message"]
        assert stage.jobs("a") == []
        stage.edit_run("a", {"checkpoint": {"path": "/checkpoints/a"}})
        stage.trainers.finish(stage.wait_running("a", 0))
        stage.wait_status("a", phase="Succeeded")


def test_a_status_of_a_neighbouring_version_is_read_and_kept(stage: Stage) -> None:
    """Fields that we do not know stay; fields that it did not write are taken as unknown; numbers go on."""
    run = stage.create_run("a")
    attempt = {"number": 4, "job": "a-a4", "cause": "NodeLost", "endedAt": "2026-01-01T00:00:00.000Z", "later": "kept"}
    status = {"attempt": 4, "attempts": [attempt], "phase": "Restarting", "later": {"field": "kept"}}
    stage.api.call("PUT", f"{stage.runs_path}/a/status", {**run, "status": status})
    with stage.operator():
        stage.wait_running("a", 5)
        stored = stage.run("a")["status"]
        assert stored["later"] == {"field": "kept"}
        assert stored["attempts"][0]["later"] == "kept"
        assert stage.attempts("a") == [(4, "NodeLost"), (5, None)]
