"""Our definition on a real API server: it installs, and refuses what `trainrun validate` refuses, at the same place."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.manifests import Case, cases, good, merged
from tests.controlplane.api import RUNS, Api, ApiError
from tests.controlplane.control_plane import ControlPlane

PATH = f"{RUNS}/namespaces/default/trainingruns"
STRICT = "fieldValidation=Strict"


@pytest.fixture(scope="module")
def api(bare_plane: ControlPlane) -> Api:
    """An admin."""
    return bare_plane.api()


def verdict(api: Api, manifest: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """The Status with which the API server refuses it; {} if it takes it."""
    name = manifest["metadata"]["name"]
    try:
        if before is None:
            api.create(f"{PATH}?dryRun=All&{STRICT}", manifest)
        else:
            stored = api.create(f"{PATH}?{STRICT}", before)
            version = {"metadata": {"resourceVersion": stored["metadata"]["resourceVersion"]}}
            api.call("PUT", f"{PATH}/{name}?dryRun=All&{STRICT}", merged(manifest, version))
    except ApiError as error:
        return error.status
    finally:
        if before is not None:
            api.delete(f"{PATH}/{name}")
    return {}


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.id)
def test_bad_manifest_is_refused_at_the_same_path(api: Api, case: Case) -> None:
    """Path and verdict agree; where a sentence is ours, the API server says it."""
    status = verdict(api, case.manifest, case.before)
    assert status, "the API server takes it"
    said = status["message"]
    places = [cause.get("field") for cause in (status.get("details") or {}).get("causes") or []]
    if places:
        assert case.path in places
    else:  # the decoder speaks in sentences
        assert case.path.split("[")[0].removeprefix("metadata.") in said
    if case.says == "cel":
        assert case.sentence in said


def test_good_manifest_is_taken(api: Api) -> None:
    """As a new object and as an update of itself."""
    assert verdict(api, good(), None) == {}
    assert verdict(api, good(), good()) == {}


def test_kinds_are_served_with_status_and_scale(api: Api) -> None:
    """Subresources, short name and category are what kubectl needs."""
    served = {r["name"]: r for r in api.get(RUNS)["resources"]}
    assert set(served) == {"trainingruns", "trainingruns/status", "trainingruns/scale"}
    assert served["trainingruns"]["shortNames"] == ["trun"]
    assert "training" in served["trainingruns"]["categories"]


def test_a_new_run_reads_as_not_looked_at_yet(api: Api) -> None:
    """Whatever the user sends as status; else `helm --wait` would call it done before the operator has seen it."""
    manifest = merged(good(), {"metadata": {"name": "unseen"}, "status": {"phase": "Succeeded"}})
    created = api.create(PATH, manifest)
    try:
        assert created["status"] == api.get(f"{PATH}/unseen")["status"] == {"observedGeneration": -1}
    finally:
        api.delete(f"{PATH}/unseen")


def test_scale_subresource_changes_the_replicas(api: Api) -> None:
    """`kubectl scale` works on a run."""
    manifest = merged(good(), {"metadata": {"name": "scaled"}})
    api.create(PATH, manifest)
    try:
        api.merge(f"{PATH}/scaled/scale", {"spec": {"replicas": 4}})
        assert api.get(f"{PATH}/scaled")["spec"]["workers"]["replicas"] == 4
    finally:
        api.delete(f"{PATH}/scaled")


def test_a_pod_template_of_64_kilobytes_is_stored(api: Api) -> None:
    """Whoever mounts much is not refused for it."""
    env = [{"name": f"VARIABLE_{n}", "value": "x" * 1000} for n in range(60)]
    template = {"spec": {"containers": [{"name": "pytorch", "env": env}]}}
    manifest = merged(good(), {"metadata": {"name": "large"}, "spec": {"workers": {"template": template}}})
    assert verdict(api, manifest, None) == {}
