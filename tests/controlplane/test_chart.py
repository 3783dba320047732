"""Helm installs, upgrades and uninstalls the chart on a real API server, which takes every object by the letter."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chart.helm import HELM_VERSIONS, FetchError, helm
from tests.chart.rendering import CHART, NAMESPACE, RELEASE, VALUES, Chart, Object, of_kind
from tests.controlplane.api import Api
from tests.controlplane.control_plane import ControlPlane
from tests.controlplane.stage import Stage
from tests.controlplane.waiting import wait_for

PATHS = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Service": "/api/v1/namespaces/{}/services",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
}
NOT_SERVED = {"ServiceMonitor", "PrometheusRule"}
"""Their definitions belong to the Prometheus operator."""


def program(version: str) -> Path:
    try:
        return helm(version)
    except FetchError as error:
        pytest.skip(str(error))


class Release:
    """Helm on the test's control plane."""

    def __init__(self, plane: ControlPlane, version: str) -> None:
        self._helm = program(version)
        self._kubeconfig = plane.kubeconfig()
        self._home = plane.folder / f"helm-{version}"

    def run(self, verb: str, *arguments: str) -> str:
        where = ["--namespace", NAMESPACE, "--kubeconfig", str(self._kubeconfig)]
        return self._call(verb, RELEASE, *arguments, *where)

    def package(self, version: str, folder: Path) -> Path:
        """This chart under another version."""
        self._call("package", str(CHART), "--version", version, "--app-version", version, "--destination", str(folder))
        return folder / f"{CHART.name}-{version}.tgz"

    def _call(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(self._helm), *arguments], env={"HOME": str(self._home)}, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def api(bare_plane: ControlPlane) -> Iterator[Api]:
    api = bare_plane.api()
    for namespace in (NAMESPACE, "research"):
        api.apply(
            f"/api/v1/namespaces/{namespace}",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        )
    yield api


@pytest.fixture(params=HELM_VERSIONS)
def release(request: pytest.FixtureRequest, bare_plane: ControlPlane, api: Api) -> Release:
    return Release(bare_plane, request.param)


def found(api: Api, objects: list[Object]) -> set[tuple[str, str]]:
    """Those of the objects that exist."""
    return {
        (obj["kind"], obj["metadata"]["name"]) for obj in objects if api.get(f"{path(obj)}/{obj['metadata']['name']}")
    }


def path(obj: Object) -> str:
    return PATHS[obj["kind"]].format(obj["metadata"].get("namespace", ""))


@pytest.mark.parametrize("values", list(VALUES.values()), ids=list(VALUES))
def test_every_object_is_taken_by_the_letter(api: Api, values: dict[str, Any]) -> None:
    """Strict: an unknown or doubled field is an error."""
    for obj in Chart(program(HELM_VERSIONS[-1])).render(values):
        if obj["kind"] not in NOT_SERVED:
            query = "fieldManager=tests&force=true&dryRun=All&fieldValidation=Strict"
            api.call(
                "PATCH", f"{path(obj)}/{obj['metadata']['name']}?{query}", obj, kind="application/apply-patch+yaml"
            )


def test_install_upgrade_and_uninstall(api: Api, release: Release) -> None:
    """From all namespaces to one: the wide role goes. The definition, and with it every run, stays at the end."""
    chart = Chart(program(HELM_VERSIONS[-1]))
    wide, narrow = chart.render(), chart.render({"watchNamespace": "research"})
    # the definition was installed by the test's control plane before
    said = release.run("install", str(CHART), "--take-ownership")
    assert f"rollout status deployment/{RELEASE}" in said
    assert found(api, wide) == {(obj["kind"], obj["metadata"]["name"]) for obj in wide}
    release.run("upgrade", str(CHART), "--set", "watchNamespace=research")
    assert found(api, narrow) == {(obj["kind"], obj["metadata"]["name"]) for obj in narrow}
    assert ("ClusterRole", RELEASE) not in found(api, wide)
    release.run("uninstall")
    assert found(api, [*wide, *narrow]) == {
        (obj["kind"], obj["metadata"]["name"]) for obj in of_kind(wide, "CustomResourceDefinition")
    }


def test_upgrade_rollback_and_uninstall_disturb_no_run(stage: Stage, release: Release, tmp_path: Path) -> None:
    """From this chart packaged one version lower, and back; processes stand for the deployment's pods."""
    older = release.package("0.0.9", tmp_path)
    release.run("install", str(older), "--take-ownership")
    with stage.operator("older"):
        stage.create_run("a")
        pods = stage.wait_running("a", 0)
        stage.wait_reason("a", "Running")
    before = alive(stage)
    release.run("upgrade", str(CHART))
    looks_at_the_run(stage, "newer")
    release.run("rollback", "1")
    looks_at_the_run(stage, "rolled-back")
    release.run("uninstall")
    assert alive(stage) == before
    with stage.operator("installed-again"):
        stage.trainers.finish(pods)
        stage.wait_status("a", phase="Succeeded", restarts=0)
    assert stage.attempts("a") == [(0, "Done")]


def looks_at_the_run(stage: Stage, name: str) -> None:
    """An operator of this name, until it has made a pass; what the one before it wrote is still there."""
    with stage.operator(name) as operator:
        passed = 'trainrun_reconcile_seconds_count{outcome="ok"}'
        wait_for(lambda: passed in operator.get("/metrics"), "a pass", seen=operator.process.tail)
        stage.wait_reason("a", "Running")


def alive(stage: Stage) -> list[str]:
    """Uids of the run, its job and its pods, none of which is being deleted."""
    objects = [stage.run("a"), *stage.jobs("a"), *stage.pods("a")]
    assert not any("deletionTimestamp" in one["metadata"] for one in objects)
    return [str(one["metadata"]["uid"]) for one in objects]
