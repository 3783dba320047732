"""Which nodes a pod may take: the user's own terms, each narrowed to healthy and not excluded nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEALTH_KEY = "sagemaker.amazonaws.com/node-health-status"
"""HyperPod's label and taint."""

HEALTHY = "Schedulable"
"""Any other value, also one that we do not know, keeps a node out."""

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

HEALTH_TOLERATION: Mapping[str, str] = {"key": HEALTH_KEY, "operator": "Exists", "effect": "NoSchedule"}
"""The affinity below decides; a taint that comes and goes with the label would only race with it."""

_HEALTH_ALTERNATIVES = (
    {"key": HEALTH_KEY, "operator": "DoesNotExist"},
    {"key": HEALTH_KEY, "operator": "In", "values": [HEALTHY]},
)
"""Terms are alternatives and the expressions of one term all hold, so 'absent or healthy' takes two terms."""


def with_placement(pod_spec: Mapping[str, Any], excluded_nodes: Sequence[str]) -> dict[str, Any]:
    """The pod spec with health and exclusions added to each of its required node terms.

    Excluded nodes are matched by `metadata.name`: on HyperPod the host name label is another name. Its API takes
    one value per expression.
    """
    affinity = dict(pod_spec.get("affinity") or {})
    node_affinity = dict(affinity.get("nodeAffinity") or {})
    required = dict(node_affinity.get(_REQUIRED) or {})
    fields = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in sorted(set(excluded_nodes))]
    terms = []
    for term in required.get("nodeSelectorTerms") or [{}]:
        for health in _HEALTH_ALTERNATIVES:
            narrowed = {**term, "matchExpressions": [*(term.get("matchExpressions") or []), dict(health)]}
            if fields:
                narrowed["matchFields"] = [*(term.get("matchFields") or []), *fields]
            terms.append(narrowed)
    node_affinity[_REQUIRED] = {**required, "nodeSelectorTerms": terms}
    return {**pod_spec, "affinity": {**affinity, "nodeAffinity": node_affinity}}
