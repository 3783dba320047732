"""Manifests of the modelled world, and how it reads them."""

from __future__ import annotations

from typing import Any

from trainrun_operator.cluster import Key, Object


def small_spec(name: str) -> dict[str, Any]:
    """The smallest spec that validates: two CPU workers, 100 steps."""
    return {
        "image": "example/trainer:1",
        "workers": {"replicas": 2, "accelerator": "cpu"},
        "checkpoint": {"path": f"/checkpoints/{name}", "interval": 10},
        "config": {
            "model": {"architecture": {}},
            "data": {"sources": {"main": {"path": "text"}}, "tokenizer": {"vocab_size": 512}, "row_tokens": 64},
            "total_steps": 100,
            "global_batch_rows": 24,
        },
    }


def phase_of(pod: Object) -> str:
    """A pod's phase."""
    return str((pod.get("status") or {}).get("phase", "Pending"))


def key_of(obj: Object) -> Key:
    """An object's namespace and name."""
    return Key(obj["metadata"]["namespace"], obj["metadata"]["name"])


def env_of(pod: Object) -> dict[str, str]:
    """Environment of the trainer container."""
    container = next(c for c in pod["spec"]["containers"] if c["name"] == "pytorch")
    return {e["name"]: e.get("value", "") for e in container.get("env") or []}


def may_run_on(pod: Object, node: Object) -> bool:
    """Required node affinity: terms are alternatives, expressions of a term must all hold."""
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = required.get("nodeSelectorTerms") or []
    labels = node["metadata"]["labels"] | {"metadata.name": node["metadata"]["name"]}
    return not terms or any(_matches(term, labels) for term in terms)


def _matches(term: dict[str, Any], labels: dict[str, str]) -> bool:
    for expression in [*term.get("matchExpressions", []), *term.get("matchFields", [])]:
        value, wanted = labels.get(expression["key"]), expression.get("values", [])
        holds = {
            "In": value in wanted,
            "NotIn": value not in wanted,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[expression["operator"]]
        if not holds:
            return False
    return True
