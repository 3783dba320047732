"""Values are few and explained; what is unknown, of the wrong type or contradictory is refused."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.chart.rendering import CHART, MONITORED, Chart, HelmError, Object

VALUES_FILE = CHART / "values.yaml"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load(VALUES_FILE.read_text())


def closed(schema: Object, path: str = "") -> Iterator[tuple[str, Object]]:
    """Every object of the schema whose keys are ours."""
    if "properties" in schema:
        yield path, schema
        for name, child in schema["properties"].items():
            yield from closed(child, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from closed(schema["items"], f"{path}.0")


def nested(path: str, value: Any) -> Any:
    """{"a": {"b": value}} of "a.b"; a number makes a list."""
    for part in reversed(path.split(".")) if path else ():
        value = [value] if part == "0" else {part: value}
    return value


CLOSED = [path for path, _ in closed(SCHEMA)]


def test_values_fit_a_few_screens_and_each_is_explained() -> None:
    """A comment stands above every key."""
    lines = VALUES_FILE.read_text().splitlines()
    assert len(lines) < 150
    for above, line in itertools.pairwise(lines):
        if re.match(r"\s*[a-zA-Z]+:", line):
            assert above.lstrip().startswith("#"), f"no comment above {line!r}"


def test_schema_knows_every_value() -> None:
    """And nothing beyond, but for what Helm itself passes."""

    def keys(values: Any, path: str = "") -> Iterator[str]:
        if isinstance(values, dict):
            for name, inner in values.items():
                yield f"{path}{name}"
                yield from keys(inner, f"{path}{name}.")

    def known(schema: Object, path: str = "") -> Iterator[str]:
        for name, inner in schema.get("properties", {}).items():
            yield f"{path}{name}"
            yield from known(inner, f"{path}{name}.")

    free = ("resources.requests.", "resources.limits.")
    ours = {key for key in keys(VALUES) if not key.startswith(free)}
    without_default = {"affinity.nodeAffinity", "affinity.podAffinity", "affinity.podAntiAffinity", "global"}
    assert set(known(SCHEMA)) - without_default == ours
    for path, schema in closed(SCHEMA):
        assert schema["additionalProperties"] is False, path


@pytest.mark.parametrize("path", CLOSED, ids=[path or "top" for path in CLOSED])
def test_unknown_keys_are_refused(chart: Chart, path: str) -> None:
    """At every level; the message names the key."""
    with pytest.raises(HelmError, match="noSuchKey"):
        chart.render(nested(path, {"noSuchKey": 1}))


WRONG: dict[str, Object] = {
    "text-for-number": {"replicas": "two"},
    "no-replica": {"replicas": 0},
    "text-for-boolean": {"crds": {"enabled": "yes"}},
    "text-for-list": {"imagePullSecrets": "registry"},
    "map-for-text": {"watchNamespace": {"name": "research"}},
    "no-namespace-name": {"watchNamespace": "Research_1"},
    "unknown-level": {"logLevel": "verbose"},
    "moving-tag": {"image": {"tag": "latest"}},
    "tag-in-repository": {"image": {"repository": "trainrun/operator:1"}},
    "agent-without-version": {"agentImage": "trainrun/trainer"},
    "no-digest": {"image": {"digest": "abc"}},
    "no-duration": {"metrics": {"serviceMonitor": {"interval": "often"}}},
    "no-port": {"networkPolicy": {"apiServerPorts": [0]}},
    "number-for-label": {"podLabels": {"team": 1}},
}


@pytest.mark.parametrize("values", WRONG.values(), ids=WRONG.keys())
def test_wrong_values_are_refused(chart: Chart, values: Object) -> None:
    """By the schema, before a template is looked at."""
    with pytest.raises(HelmError, match="don't meet the specifications of the schema"):
        chart.render(values)


CONTRADICTIONS: dict[str, tuple[Object, str]] = {
    "two-images": (
        {"image": {"tag": "1", "digest": "sha256:" + "a" * 64}},
        "image.tag=1 and image.digest=sha256:a+ name two images; leave one of them empty",
    ),
    "nameless-account": (
        {"serviceAccount": {"create": False}},
        "serviceAccount.create=false needs serviceAccount.name: .*; name an account that exists",
    ),
    "alerts-without-metrics": (
        {"metrics": {"rules": {"enabled": True}}},
        "metrics.rules.enabled=true needs metrics.serviceMonitor.enabled=true: ",
    ),
    "prometheus-kept-out": (
        {**MONITORED, "networkPolicy": {"enabled": True}},
        "needs networkPolicy.metricsFrom: .*; name the namespace or the pods that it runs in",
    ),
}


@pytest.mark.parametrize(("values", "sentence"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_contradictions_stop_the_installation(chart: Chart, values: Object, sentence: str) -> None:
    """With one sentence that says what to change."""
    with pytest.raises(HelmError, match=sentence):
        chart.render(values)


def test_chart_can_be_a_dependency(chart: Chart) -> None:
    """Helm then adds `global`."""
    assert chart.render({"global": {"anything": 1}})
