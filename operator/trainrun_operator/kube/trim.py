"""Objects cut down to what the rules read: 8,000 pods with their managed fields would be hundreds of MB."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from trainrun_api.contract import Env

from trainrun_operator.cluster import Kind, Object
from trainrun_operator.hyperpod import FAULT_DETAILS

SHARED_LENGTH = 64

_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "labels",
    "ownerReferences",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_POD_STATUS = ("phase", "reason", "message", "podIP", "startTime")
_CONDITION = ("type", "status", "reason", "message", "lastTransitionTime", "lastHeartbeatTime")
_CONTAINER_STATUS = ("name", "state", "restartCount", "imageID")


def trimmed(kind: Kind, obj: Object) -> Object:
    """The parts of an object that anybody here reads; trimming twice changes nothing.

    Equal strings become one: every decoded event brings its own copies of all keys, half of what a pod would take.
    """
    shared: Object = _shared(_parts(kind, obj))
    return shared


def _parts(kind: Kind, obj: Object) -> Object:
    small: Object = {"kind": kind, "metadata": _only(obj["metadata"], _METADATA)}
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    match kind:
        case "TrainingRun":
            small["spec"] = _only(spec, ("checkpoint",))
            small["status"] = status
        case "PyTorchJob":
            small["spec"] = _only(spec, ("runPolicy",))
            small["status"] = status
        case "Pod":
            small["spec"] = {
                **_only(spec, ("nodeName",)),
                "containers": [_container(c) for c in spec.get("containers") or ()],
            }
            small["status"] = {
                **_only(status, _POD_STATUS),
                "conditions": _each(status.get("conditions"), _CONDITION),
                "initContainerStatuses": _each(status.get("initContainerStatuses"), _CONTAINER_STATUS),
                "containerStatuses": _each(status.get("containerStatuses"), _CONTAINER_STATUS),
            }
        case "Node":
            told = _only(obj["metadata"].get("annotations") or {}, (FAULT_DETAILS,))
            if told:
                small["metadata"]["annotations"] = told
            small["spec"] = _only(spec, ("unschedulable", "taints"))
            ready = [one for one in status.get("conditions") or () if one.get("type") == "Ready"]
            small["status"] = {"conditions": [_heartbeat_if_needed(one) for one in _each(ready, _CONDITION)]}
    return small


def _heartbeat_if_needed(ready: dict[str, Any]) -> dict[str, Any]:
    """When a node was last heard of says something only of one that is not Ready."""
    return {k: v for k, v in ready.items() if k != "lastHeartbeatTime"} if ready.get("status") == "True" else ready


def _container(container: Mapping[str, Any]) -> dict[str, Any]:
    """Name and image, and of the environment what tells whose pod it is and where its agent listens."""
    env = [e for e in container.get("env") or () if e.get("name") in (Env.RUN_UID, Env.AGENT_PORT)]
    return {**_only(container, ("name", "image")), "env": env}


def _each(items: Iterable[Mapping[str, Any]] | None, names: Iterable[str]) -> list[dict[str, Any]]:
    return [_only(item, names) for item in items or ()]


def _shared(value: Any) -> Any:
    """A copy of the value with interned strings, but for long ones, which are hardly ever equal."""
    if type(value) is str:
        return sys.intern(value) if len(value) <= SHARED_LENGTH else value
    if type(value) is dict:
        return {sys.intern(name): _shared(item) for name, item in value.items()}
    if type(value) is list:
        return [_shared(item) for item in value]
    return value


def _only(source: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: source[name] for name in names if name in source}
