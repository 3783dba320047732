"""The chart renders under helm 3 and helm 4, with every kind of values, to objects that a cluster would take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from trainrun_api.contract import AGENT_PORT, Label
from trainrun_operator.__main__ import arguments
from trainrun_operator.core.pod import AGENT_IMAGE
from trainrun_operator.kube.cache import Cache
from trainrun_operator.metrics import Metrics, StateCollector
from trainrun_operator.testing import FakeClock

from tests.chart.rendering import (
    CHART,
    EVERYTHING,
    MONITORED,
    NAMESPACE,
    RELEASE,
    ROOT,
    VALUES,
    Chart,
    Object,
    of_kind,
    one,
)

CLUSTER_SCOPED = {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}
REQUIRED: dict[str, tuple[str, ...]] = {
    "ServiceAccount": (),
    "CustomResourceDefinition": ("spec.group", "spec.names.plural", "spec.scope", "spec.versions"),
    "ClusterRole": ("rules",),
    "Role": ("rules",),
    "ClusterRoleBinding": ("roleRef.name", "subjects"),
    "RoleBinding": ("roleRef.name", "subjects"),
    "Service": ("spec.selector", "spec.ports"),
    "Deployment": ("spec.selector.matchLabels", "spec.template.metadata.labels", "spec.template.spec.containers"),
    "PodDisruptionBudget": ("spec.maxUnavailable", "spec.selector"),
    "NetworkPolicy": ("spec.podSelector", "spec.policyTypes", "spec.egress"),
    "ServiceMonitor": ("spec.selector", "spec.endpoints"),
    "PrometheusRule": ("spec.groups",),
}
"""Paths that must hold something, of every kind that the chart may make."""


def at(obj: Object, path: str) -> Any:
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


@pytest.fixture(params=list(VALUES.values()), ids=list(VALUES))
def values(request: pytest.FixtureRequest) -> Object:
    found: Object = request.param
    return found


def test_lint_finds_nothing(chart: Chart, values: Object) -> None:
    """--strict: a warning is an error."""
    assert "0 chart(s) failed" in chart.lint(values)


def test_objects_are_complete(chart: Chart, values: Object) -> None:
    """Version, name, labels, the namespace if there is one, and the fields that the API server requires."""
    objects = chart.render(values)
    names = [(obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"]) for obj in objects]
    assert len(names) == len(set(names))
    for obj in objects:
        assert obj["apiVersion"]
        assert ("namespace" in obj["metadata"]) is (obj["kind"] not in CLUSTER_SCOPED), obj
        assert obj["metadata"]["labels"]["app.kubernetes.io/instance"] == RELEASE
        for path in REQUIRED[obj["kind"]]:
            assert at(obj, path), f"{obj['kind']} has no {path}"


def test_selectors_choose_the_operators_pods(chart: Chart) -> None:
    """Of the Deployment, the budget, the Service and the policy; a Deployment's selector can never be changed."""
    objects = chart.render(EVERYTHING)
    deployment = one(objects, "Deployment")
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector == {
        "app.kubernetes.io/name": "trainrun", "app.kubernetes.io/component": "operator",
        "app.kubernetes.io/instance": RELEASE,
    }  # fmt: skip
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert one(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == selector
    assert one(objects, "Service")["spec"]["selector"] == selector
    assert one(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == selector
    monitor = one(objects, "ServiceMonitor")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= one(objects, "Service")["metadata"]["labels"].items()


def test_operator_is_confined(chart: Chart, values: Object) -> None:
    """What the "restricted" pod security standard wants, and a root file system that nobody writes to."""
    pod = one(chart.render(values), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes", "initContainers"} & set(pod)
    assert container["resources"]["limits"]["memory"]
    assert container["resources"]["requests"]["cpu"]


def test_operator_understands_its_arguments(chart: Chart, values: Object) -> None:
    """The program's own parser takes them."""
    (container,) = one(chart.render(values), "Deployment")["spec"]["template"]["spec"]["containers"]
    options = arguments(container["args"])
    assert options.leader_elect
    assert options.namespace == values.get("watchNamespace", "")
    assert options.agent_image == values.get("agentImage", AGENT_IMAGE)
    assert options.log_level == "info"
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["ports"] == [{"name": "http", "containerPort": options.port, "protocol": "TCP"}]


def test_operator_stops_within_its_grace_and_never_leaves_a_gap(chart: Chart) -> None:
    """A new pod is there before an old one goes; one goes at a time."""
    objects = chart.render()
    deployment = one(objects, "Deployment")["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert deployment["template"]["spec"]["terminationGracePeriodSeconds"] == 30
    assert not of_kind(chart.render({"replicas": 1}), "PodDisruptionBudget")


def test_image_is_named_by_version_or_digest(chart: Chart) -> None:
    """Never by a tag that moves."""
    app_version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    images = {
        name: one(chart.render(VALUES[name]), "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"]
        for name in ("defaults", "by-digest")
    }
    assert images == {
        "defaults": f"trainrun/operator:{app_version}",
        "by-digest": "registry.example:5000/trainrun/operator@sha256:" + "a" * 64,
    }


@pytest.mark.parametrize("keep", [True, False])
def test_definition_is_the_generated_one(chart: Chart, keep: bool) -> None:
    """Letter for letter, but for labels and the annotation by which Helm leaves it at uninstallation."""
    rendered = one(chart.render({"crds": {"keep": keep}}), "CustomResourceDefinition")
    metadata = rendered["metadata"]
    assert metadata.pop("annotations", {}) == ({"helm.sh/resource-policy": "keep"} if keep else {})
    del metadata["labels"]
    assert rendered == yaml.safe_load((ROOT / "crds" / "trainrun.dev_trainingruns.yaml").read_text())


def test_definition_can_come_from_elsewhere(chart: Chart) -> None:
    """For clusters where only administrators install definitions."""
    assert not of_kind(chart.render({"crds": {"enabled": False}}), "CustomResourceDefinition")


def test_policy_opens_what_the_operator_needs(chart: Chart) -> None:
    """The agents' port is the contract's."""
    policy = one(chart.render(EVERYTHING), "NetworkPolicy")["spec"]
    agents = policy["egress"][-1]
    assert agents["ports"] == [{"port": AGENT_PORT, "protocol": "TCP"}]
    assert agents["to"][0]["podSelector"]["matchExpressions"] == [{"key": Label.RUN, "operator": "Exists"}]
    assert policy["ingress"][0]["from"] == EVERYTHING["networkPolicy"]["metricsFrom"]


def metric_names() -> Iterator[str]:
    metrics = Metrics()
    metrics.watch_state(StateCollector(lambda: [], lambda: 0, Cache(FakeClock().monotonic).ages_seconds, lambda: 0.0))
    for family in metrics.registry.collect():
        yield family.name
        yield f"{family.name}_total"


def test_alerts_name_metrics_that_exist(chart: Chart) -> None:
    """Scraped by our ServiceMonitor, and each with a sentence that says what to do."""
    names = set(metric_names())
    rules = one(chart.render(MONITORED), "PrometheusRule")["spec"]["groups"][0]["rules"]
    assert len(rules) >= 5
    for rule in rules:
        used = [word.split("{")[0] for word in rule["expr"].replace("(", " ").split() if word.startswith("trainrun_")]
        assert used, rule["expr"]
        assert set(used) <= names
        assert rule["expr"].count(f'namespace="{NAMESPACE}",job="{RELEASE}"') == len(used)
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
        assert rule["labels"]["severity"] in {"warning", "critical"}


@pytest.mark.parametrize(
    ("release", "name"),
    [("trainrun-operator", "trainrun-operator"), ("ml", "ml-trainrun"), ("a" * 53, "a" * 52)],
    ids=["speaking", "other", "longest"],
)
def test_objects_are_named_by_the_release(chart: Chart, release: str, name: str) -> None:
    """Short enough for a label."""
    assert one(chart.render({}, release=release), "Deployment")["metadata"]["name"] == name
