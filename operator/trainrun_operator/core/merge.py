"""Lays a user's partial pod template over ours: maps deeply, lists of named things by name, all else replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_NAMED_BY = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "hostAliases": "ip",
}
"""The keys that Kubernetes' own strategic merge goes by."""

_MERGED_INSIDE = ("containers", "initContainers")
"""Merged field by field; any other named entry (a volume, a variable) is one choice and is replaced."""

_APPENDED = ("tolerations", "envFrom")
"""Lists without a key that may only grow, because ours are needed."""


def overlay(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """A new map; neither argument is changed. A null of theirs removes ours."""
    out: dict[str, Any] = dict(ours)
    for name, value in theirs.items():
        mine = out.get(name)
        if value is None:
            out.pop(name, None)
        elif isinstance(mine, list) and isinstance(value, list) and name in _NAMED_BY:
            out[name] = _by_key(mine, value, _NAMED_BY[name], inside=name in _MERGED_INSIDE)
        elif isinstance(mine, list) and isinstance(value, list) and name in _APPENDED:
            out[name] = [*mine, *(item for item in value if item not in mine)]
        elif isinstance(mine, Mapping) and isinstance(value, Mapping):
            out[name] = overlay(mine, value)
        else:
            out[name] = value
    return out


def _by_key(ours: Sequence[Any], theirs: Sequence[Any], key: str, *, inside: bool) -> list[Any]:
    changes = {item[key]: item for item in theirs}
    merged = []
    for item in ours:
        change = changes.pop(item[key], None)
        if change is None:
            merged.append(item)
        else:
            merged.append(overlay(item, change) if inside else change)
    return [*merged, *changes.values()]
