"""`kubectl apply -k deploy/kustomize` installs what the chart installs with its defaults."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from tests.chart.rendering import NAMESPACE, ROOT, TIMEOUT_SECONDS, Chart, Object

HELMS_OWN = {
    "app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart",
}  # fmt: skip


def plain(value: object) -> object:
    """Without labels by which Helm knows its objects, wherever labels or selectors are."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items() if key not in HELMS_OWN}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def by_name(objects: list[Object]) -> dict[tuple[str, str], object]:
    return {(obj["kind"], obj["metadata"]["name"]): plain(obj) for obj in objects}


def build(kubectl: Path, folder: Path) -> list[Object]:
    done = subprocess.run(
        [str(kubectl), "kustomize", str(folder)], capture_output=True, text=True, timeout=TIMEOUT_SECONDS
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_kustomize_gives_the_same_as_the_chart(chart: Chart, kubectl_path: Path) -> None:
    """But for the namespace, which Helm does not make, and the labels of Helm's definition."""
    built = by_name(build(kubectl_path, ROOT / "deploy" / "kustomize"))
    rendered = by_name(chart.render({"crds": {"keep": False}}))
    namespace = built.pop(("Namespace", NAMESPACE))
    assert isinstance(namespace, dict)
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    definition = rendered[("CustomResourceDefinition", "trainingruns.trainrun.dev")]
    assert isinstance(definition, dict)
    del definition["metadata"]["labels"]
    assert built == rendered


def test_registry_is_named_by_an_overlay(kubectl_path: Path, tmp_path: Path) -> None:
    """As the comment of the base says."""
    overlay = {
        "resources": [str(Path("base"))],
        "images": [{"name": "trainrun/operator", "newName": "registry.example/trainrun/operator", "newTag": "0.1.1"}],
    }
    (tmp_path / "base").symlink_to(ROOT / "deploy" / "kustomize")
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    (deployment,) = [obj for obj in build(kubectl_path, tmp_path) if obj["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/trainrun/operator:0.1.1"
