"""Models -> CustomResourceDefinition. Pure; `generate.py` writes the result to crds/.

What pydantic calls a JSON schema is turned into a *structural* schema, as the API server demands: no references,
no unions but int-or-string, OpenAPI v3's boolean `exclusiveMinimum`, and sizes bounded so that the cost of each
CEL rule can be estimated. Defaults are only described: filling them in would rewrite the user's spec, which GitOps
tools show as drift. The exceptions are what the scale subresource reads, and a status that nobody wrote yet.
"""

from __future__ import annotations

import functools
from typing import Any

from trainrun_api.contract import GROUP
from trainrun_api.rules import RULES, Rule
from trainrun_api.v1alpha1 import TrainingRun, TrainingRunSpec, TrainingRunStatus

Schema = dict[str, Any]

VERSION = "v1alpha1"
KIND = "TrainingRun"
PLURAL = "trainingruns"
NAME = f"{PLURAL}.{GROUP}"

_KEPT = ("description", "pattern", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
UNSEEN = {"observedGeneration": -1}
"""Status until the operator's first write: kstatus calls an object without a status Current, so that `helm --wait` and
Flux would be content with a run that nobody has looked at."""

_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_INT_OR_STRING = "x-kubernetes-int-or-string"

PRINTER_COLUMNS = (
    ("Phase", "string", ".status.phase", 0),
    ("Attempt", "integer", ".status.attempt", 0),
    ("Step", "integer", ".status.progress.step", 0),
    ("Loss", "number", ".status.progress.loss", 0),
    ("ETTR", "number", ".status.goodput.ettr", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Replicas", "integer", ".spec.workers.replicas", 1),
    ("Restarts", "integer", ".status.restarts", 1),
    ("Reason", "string", ".status.conditions[?(@.type=='Ready')].reason", 1),
)


def crd() -> Schema:
    """The whole CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["trun"],
                "categories": ["training"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.workers.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [_column(*column) for column in PRINTER_COLUMNS],
                    "schema": {"openAPIV3Schema": root_schema()},
                }
            ],
        },
    }


@functools.cache
def root_schema() -> Schema:
    """The structural schema of a TrainingRun, rules included."""
    spec = structural(TrainingRunSpec.model_json_schema(by_alias=True))
    workers = spec["properties"]["workers"]
    workers["default"] = {}
    workers["properties"]["replicas"]["default"] = 1
    root: Schema = {
        "type": "object",
        "description": _one_line(TrainingRun.__doc__),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
            "kind": {"type": "string", "description": KIND},
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": spec,
            "status": structural(TrainingRunStatus.model_json_schema(by_alias=True)),
        },
    }
    root["properties"]["status"]["default"] = dict(UNSEEN)
    for rule in RULES:
        node_at(root, rule.at).setdefault("x-kubernetes-validations", []).append(_validation(rule))
    return root


def node_at(root: Schema, path: str) -> Schema:
    """The schema of a dotted path; raises KeyError for a path that does not exist."""
    node = root
    for name in path.split(".") if path else ():
        node = node["properties"][name]
    return node


def structural(schema: Schema) -> Schema:
    """A structural schema from pydantic's JSON schema."""
    return _node(schema, schema.get("$defs", {}), "")


def _node(raw: Schema, definitions: dict[str, Schema], hint: str) -> Schema:
    default = raw.get("default")
    raw, hint = _resolve(raw, definitions, hint)
    out: Schema = {key: raw[key] for key in _KEPT if key in raw}
    if hint:
        out["description"] = hint
    if "description" in out:
        out["description"] = _one_line(out["description"]) + _default_text(default)
    if {branch.get("type") for branch in raw.get("anyOf", ())} == {"integer", "string"}:
        # the string branch's length limit would make the schema non-structural here; the rules bound the text
        return {**out, _INT_OR_STRING: True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
    out["type"] = raw["type"]
    if raw["type"] == "object":
        _object(out, raw, definitions)
    elif raw["type"] == "array":
        out["items"] = _node(raw["items"], definitions, "")
    elif raw["type"] in ("integer", "number"):
        _bounds(out, raw)
    if "enum" in raw or "const" in raw:
        out["enum"] = raw.get("enum") or [raw["const"]]
    return out


def _resolve(raw: Schema, definitions: dict[str, Schema], hint: str) -> tuple[Schema, str]:
    """Follow references and drop `or null`; the field's own description beats its type's."""
    hint = raw.get("description", hint)
    branches = [branch for branch in raw.get("anyOf", ()) if branch.get("type") != "null"]
    if len(branches) == 1:
        return _resolve({**branches[0], **({"description": hint} if hint else {})}, definitions, hint)
    if "$ref" in raw:
        return definitions[raw["$ref"].rsplit("/", 1)[1]], hint
    return ({**raw, "anyOf": branches} if branches else raw), hint


def _object(out: Schema, raw: Schema, definitions: dict[str, Schema]) -> None:
    if "properties" in raw:
        out["properties"] = {name: _node(child, definitions, "") for name, child in raw["properties"].items()}
        if raw.get("required"):
            out["required"] = raw["required"]
    extra = raw.get("additionalProperties")
    if extra is True:
        out[_PRESERVE] = True
    elif isinstance(extra, dict):
        out["additionalProperties"] = _node(extra, definitions, "")


def _bounds(out: Schema, raw: Schema) -> None:
    if raw["type"] == "integer":
        out["format"] = "int64"
    for key, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if key in raw:
            out[key] = raw[key]
        if exclusive in raw:
            out[key], out[exclusive] = raw[exclusive], True


def _validation(rule: Rule) -> Schema:
    # the API server then prints "Forbidden: <our sentence>", and not the word "object" for the value
    out: Schema = {"rule": rule.cel, "reason": "FieldValueForbidden"}
    expression = rule.message_expression()
    if expression is None:
        out["message"] = rule.message
    else:
        out["messageExpression"] = expression
    if rule.child:
        out["fieldPath"] = f".{rule.child}"
    return out


def _column(name: str, kind: str, path: str, priority: int) -> Schema:
    column: Schema = {"name": name, "type": kind, "jsonPath": path}
    return {**column, "priority": priority} if priority else column


def _default_text(default: object) -> str:
    if default is None or default == "" or isinstance(default, (dict, list)):
        return ""
    text = {True: "true", False: "false"}.get(default, default) if isinstance(default, bool) else default
    return f" Default: {text}."


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
