"""The operator in the cluster, as docs/install.md has it: Helm installs the chart, its pods use their own account."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import yaml
from trainrun_operator.cluster import Object

from tests.chart.helm import HELM_VERSIONS, helm
from tests.chart.rendering import CHART, NAMESPACE, RELEASE
from tests.controlplane.control_plane import ControlPlane
from tests.controlplane.waiting import wait_for
from tests.nodes.images import Images

HELM_SECONDS = 300


def ensure_helm() -> Path:
    """The program. Raises FetchError."""
    return helm(HELM_VERSIONS[-1])


def install(plane: ControlPlane, images: Images, *, node: str) -> None:
    """`helm install` of the chart's defaults with these images, on this node."""
    _helm(plane, "install", RELEASE, str(CHART), "--create-namespace", *_values(images, node))


def upgrade(plane: ControlPlane, images: Images, chart: Path, *, node: str) -> None:
    """`helm upgrade` to this chart, until its operators are ready; the chart's version is on their pods."""
    version = yaml.safe_load((chart / "Chart.yaml").read_text())["version"]
    note = ("--set-string", f"podAnnotations.chart={version}")
    _helm(plane, "upgrade", RELEASE, str(chart), "--wait", *_values(images, node), *note)


def rollback(plane: ControlPlane) -> None:
    """`helm rollback` to the revision before, until its operators are ready."""
    _helm(plane, "rollback", RELEASE, "--wait")


def older_chart(folder: Path) -> Path:
    """The chart as a user had it one version ago."""
    chart = shutil.copytree(CHART, folder / "older")
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    (chart / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": "0.0.9"}))
    return chart


def _values(images: Images, node: str) -> list[str]:
    repository, tag = images.operator.rsplit(":", 1)
    values = {
        "image.repository": repository,
        "image.tag": tag,
        "agentImage": images.trainer,
        "nodeSelector.kubernetes\\.io/hostname": node,
    }
    return [part for name, value in values.items() for part in ("--set-string", f"{name}={value}")]


def _helm(plane: ControlPlane, verb: str, *arguments: str) -> None:
    done = subprocess.run(
        [str(ensure_helm()), verb, *arguments, "--namespace", NAMESPACE, "--kubeconfig", str(plane.kubeconfig()),
         "--timeout", f"{HELM_SECONDS}s"],
        env={"HOME": str(plane.folder / "helm")}, capture_output=True, text=True, timeout=2 * HELM_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def wait_leading(plane: ControlPlane) -> str:
    """Until one of its pods holds the Lease; that pod's name on it."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/trainrun-operator"

    def holder() -> str:
        lease = plane.api().get(path) or {}
        return str((lease.get("spec") or {}).get("holderIdentity") or "")

    return wait_for(holder, "an operator to lead", seen=lambda: pods(plane))


def delete_leader(plane: ControlPlane) -> str:
    """kubectl delete pod of the one that leads, which it does until it is gone; its name on the Lease."""
    leader = wait_leading(plane)
    plane.api().delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{leader.rsplit('_', 1)[0]}")
    return leader


def delete_all(plane: ControlPlane) -> None:
    """kubectl delete pod of every replica at once."""
    plane.api().delete(f"/api/v1/namespaces/{NAMESPACE}/pods")


def pods(plane: ControlPlane) -> list[tuple[str, str, object]]:
    """Name, phase and container states of the operator's pods."""
    found = plane.api().get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
    return [(pod["metadata"]["name"], pod["status"].get("phase"), _states(pod)) for pod in found]


def _states(pod: Object) -> list[object]:
    return [container["state"] for container in pod["status"].get("containerStatuses", [])]
