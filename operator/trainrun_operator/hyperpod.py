"""What HyperPod's health agent writes on a Node, as facts: its verdict, and its own words for people.

The verdict (label or taint) is all that decides anything. Instance group, fault labels and fault details are evidence:
their values are not listed anywhere, so they are told and never compared. Pure parsing, no judgement.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from trainrun_operator.core.placement import HEALTH_KEY, HEALTHY

PREFIX = "sagemaker.amazonaws.com"
INSTANCE_GROUP_LABEL = f"{PREFIX}/instance-group-name"
"""Survives the replacement of a node; the node's name does not."""
FAULT_LABELS = (f"{PREFIX}/fault-types", f"{PREFIX}/fault-reasons")
"""Of the current fault; gone with it."""
FAULT_DETAILS = f"{PREFIX}/fault-details"
"""Annotation: JSON list of {timestamp, type, reason, message}; how long old entries stay is not documented."""

LONGEST_FAULT = 200
"""Characters: a sentence may name several nodes, and an Event holds 1,024."""


def mark(labels: Mapping[str, str], taints: Iterable[Mapping[str, str]]) -> str:
    """What HyperPod says against a node: an unknown label value is bad, a missing label is no opinion."""
    label = labels.get(HEALTH_KEY, HEALTHY)
    if label != HEALTHY:
        return label
    taint = next((t for t in taints if t.get("key") == HEALTH_KEY), None)
    return "" if taint is None else str(taint.get("value", "Unschedulable"))


def fault(labels: Mapping[str, str], annotations: Mapping[str, str]) -> str:
    """The node's current fault in HyperPod's words, or "".

    Details count only while a label says that there is a fault: they may tell of one that was repaired long ago.
    """
    names = [labels[key] for key in FAULT_LABELS if labels.get(key)]
    if not names:
        return ""
    newest = _newest(annotations.get(FAULT_DETAILS))
    for key in ("type", "reason"):
        name = _text(newest.get(key))
        if name and not any(name in known for known in names):
            names.append(name)
    said = [part for part in (", ".join(names), _text(newest.get("message"))) if part]
    text = ": ".join(said)
    return text if len(text) <= LONGEST_FAULT else f"{text[: LONGEST_FAULT - 3]}..."


def _newest(details: str | None) -> Mapping[str, Any]:
    """The entry with the last timestamp, the later of equal ones; {} if there is none that can be read."""
    try:
        entries = json.loads(details or "[]")
    except (ValueError, RecursionError):
        return {}
    readable = [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
    return max(reversed(readable), key=lambda entry: str(entry.get("timestamp", "")), default={})


def _text(value: object) -> str:
    """One line, or "" for anything but text."""
    return " ".join(value.split()) if isinstance(value, str) else ""
