"""One worker pod per slot, with the words of the real scheduler when it cannot be done. Pure.

A slot stands for any kind of node, so node selectors and resources are not looked at; node affinity is: it is how
the operator keeps away from bad nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from trainrun_operator.cluster import Object

ENDED = ("Succeeded", "Failed")


def schedule(pods: Sequence[Object], nodes: Sequence[Object]) -> tuple[dict[str, str], dict[str, str]]:
    """(pod uid -> node name) for the pods that can be placed now, (pod uid -> message) for the others."""
    taken = {
        p["spec"]["nodeName"]
        for p in pods
        if p["spec"].get("nodeName") and p.get("status", {}).get("phase") not in ENDED
    }
    bindings: dict[str, str] = {}
    messages: dict[str, str] = {}
    for pod in sorted(pods, key=lambda p: str(p["metadata"]["name"])):
        if pod["spec"].get("nodeName") or "deletionTimestamp" in pod["metadata"]:
            continue
        reasons = Counter[str]()
        for node in sorted(nodes, key=lambda n: str(n["metadata"]["name"])):
            reason = _why_not(pod, node, taken)
            if reason is None:
                bindings[pod["metadata"]["uid"]] = node["metadata"]["name"]
                taken.add(node["metadata"]["name"])
                break
            reasons[reason] += 1
        else:
            why = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
            messages[pod["metadata"]["uid"]] = f"0/{len(nodes)} nodes are available: {why or 'none exist'}."
    return bindings, messages


def is_ready(node: Object) -> bool:
    """Whether the node's Ready condition is True."""
    conditions = node.get("status", {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _why_not(pod: Object, node: Object, taken: set[str]) -> str | None:
    if not is_ready(node):
        return "node(s) had untolerated taint {node.kubernetes.io/unreachable: }"
    if node["spec"].get("unschedulable"):
        return "node(s) were unschedulable"
    if not _is_affine(pod, node):
        return "node(s) didn't match Pod's node affinity/selector"
    return "Insufficient slots" if node["metadata"]["name"] in taken else None


def _is_affine(pod: Object, node: Object) -> bool:
    """Terms are alternatives; the expressions of a term must all hold."""
    affinity = pod["spec"].get("affinity") or {}
    required = (affinity.get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    labels = node["metadata"].get("labels") or {}
    fields = {"metadata.name": node["metadata"]["name"]}
    return any(
        all(_holds(e, labels) for e in term.get("matchExpressions") or [])
        and all(_holds(e, fields) for e in term.get("matchFields") or [])
        for term in required["nodeSelectorTerms"]
    )


def _holds(expression: dict[str, Any], labels: dict[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case other:  # Gt and Lt compare numbers; slots have none
            raise ValueError(f"local mode cannot compare node label {expression['key']!r} by operator {other!r}")
