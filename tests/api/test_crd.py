"""The committed CRD is the generated one, and it obeys the API server's rules for structural schemas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from trainrun_api.crd import crd, node_at, root_schema
from trainrun_api.generate import API_PAGE, CHART_CRD_FILE, CRD_FILE, api_page, crd_yaml, main

from tests.api import cel

ROOT = Path(__file__).parents[2]
FORBIDDEN_KEYS = {
    "$ref",
    "$defs",
    "definitions",
    "allOf",
    "oneOf",
    "not",
    "title",
    "const",
    "uniqueItems",
    "dependencies",
}
CEL_SOURCE_LIMIT = 5120
"""The API server refuses longer expressions and messages."""


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}.*")


NODES = list(nodes(root_schema()))


def test_committed_files_are_current() -> None:
    """`make generate` was run."""
    assert (ROOT / CRD_FILE).read_text(encoding="utf-8") == crd_yaml()
    assert (ROOT / CHART_CRD_FILE).read_text(encoding="utf-8") == crd_yaml()
    assert (ROOT / API_PAGE).read_text(encoding="utf-8") == api_page()


def test_main_writes_both_files(tmp_path: Path) -> None:
    """The generator makes its folders."""
    main(tmp_path)
    assert yaml.safe_load((tmp_path / CRD_FILE).read_text(encoding="utf-8")) == crd()
    assert (tmp_path / API_PAGE).read_text(encoding="utf-8").startswith("# The TrainingRun")


def test_schema_is_structural() -> None:
    """No references and no unions but int-or-string; every node has a type."""
    for path, node in NODES:
        assert not FORBIDDEN_KEYS & set(node), path
        if node.get("x-kubernetes-int-or-string"):
            assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
        else:
            assert "anyOf" not in node, path
            assert node["type"] in {"object", "array", "string", "integer", "number", "boolean"}, path


def test_what_a_user_writes_is_bounded() -> None:
    """Without bounds the API server cannot estimate what a CEL rule costs."""
    for path, node in NODES:
        if not path.startswith(".spec"):
            continue
        if node.get("type") == "string":
            assert "maxLength" in node or "enum" in node, path
        if node.get("type") == "array":
            assert "maxItems" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path


def test_every_field_is_described() -> None:
    """`kubectl explain trainingrun` answers for every field of the spec."""
    for path, node in NODES:
        if path.startswith(".spec") and not path.endswith(("[]", ".*")):
            assert node.get("description"), path


def test_unknown_fields_survive_where_others_write_them() -> None:
    """A newer operator's status and the untyped parts of the pod template are kept."""
    keep = {path for path, node in NODES if node.get("x-kubernetes-preserve-unknown-fields")}
    assert {".status", ".status.attempts[]", ".status.progress", ".spec.workers.template.spec"} <= keep
    assert ".spec" not in keep
    assert not any(path.startswith(".spec.config") for path in keep)


def test_rules_fit_the_api_server() -> None:
    """Each rule compiles, has one message, names a field that exists, and is short enough."""
    for path, node in NODES:
        for rule in node.get("x-kubernetes-validations", ()):
            assert ("message" in rule) != ("messageExpression" in rule), path
            for source in (rule["rule"], rule.get("messageExpression", "''")):
                assert len(source) <= CEL_SOURCE_LIMIT
                cel.ENVIRONMENT.compile(source)
            if "fieldPath" in rule:
                assert node_at(node, rule["fieldPath"].removeprefix(".")), (path, rule)


def test_defaults_do_not_rewrite_the_spec() -> None:
    """Only what the scale subresource reads has a default; more would show as drift in GitOps tools. A status that
    nobody wrote yet is not taken for 'done'."""
    assert {path: node["default"] for path, node in NODES if "default" in node} == {
        ".spec.workers": {},
        ".spec.workers.replicas": 1,
        ".status": {"observedGeneration": -1},
    }


@pytest.mark.parametrize("column", ["Phase", "Attempt", "Step", "Loss", "ETTR", "Age"])
def test_printer_columns(column: str) -> None:
    """`kubectl get trun` shows what a person asks first."""
    columns = crd()["spec"]["versions"][0]["additionalPrinterColumns"]
    assert [c["name"] for c in columns if not c.get("priority")].count(column) == 1


def test_names_and_subresources() -> None:
    """kubectl's words for the kind, and what `kubectl scale` needs."""
    spec = crd()["spec"]
    assert spec["names"]["shortNames"] == ["trun"]
    assert spec["names"]["categories"] == ["training"]
    assert spec["versions"][0]["subresources"] == {
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.workers.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    }
