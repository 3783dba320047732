"""The status that a kubelet writes for a pod, in the shape that the API serves. Pure."""

from __future__ import annotations

from typing import Any

from trainrun_operator.cluster import Object
from trainrun_operator.local.pod_process import CONTAINER, LOOPBACK, trainer_container
from trainrun_operator.objects import copy_json

CONTAINER_LOST = (137, "ContainerStatusUnknown")
"""What a kubelet says of a container whose end it did not see."""


def unscheduled_status(pod: Object, message: str, now: str) -> Object:
    """The scheduler found no node."""
    return _with(pod, now, PodScheduled=("False", "Unschedulable", message))


def scheduled_status(pod: Object, now: str) -> Object:
    """The scheduler bound the pod."""
    return _with(pod, now, PodScheduled=("True", "", ""))


def waiting_status(pod: Object, reason: str, message: str) -> Object:
    """The container cannot be made."""
    status: Object = copy_json(pod["status"])
    status["containerStatuses"] = [_container(pod, {"waiting": {"reason": reason, "message": message}})]
    return status


def running_status(pod: Object, started_at: str) -> Object:
    """The container runs."""
    status = _with(pod, started_at, Ready=("True", "", ""), ContainersReady=("True", "", ""))
    status |= {"phase": "Running", "podIP": LOOPBACK, "hostIP": LOOPBACK, "startTime": started_at}
    status["containerStatuses"] = [_container(pod, {"running": {"startedAt": started_at}})]
    return status


def ended_status(pod: Object, code: int, reason: str, message: str, started_at: str, finished_at: str) -> Object:
    """The container has ended; the pod's restart policy is Never."""
    why = "PodCompleted" if code == 0 else "PodFailed"
    status = _with(pod, finished_at, Ready=("False", why, ""), ContainersReady=("False", why, ""))
    terminated = {
        "exitCode": code, "reason": reason, "message": message, "startedAt": started_at, "finishedAt": finished_at,
    }  # fmt: skip
    status["phase"] = "Succeeded" if code == 0 else "Failed"
    status["containerStatuses"] = [_container(pod, {"terminated": terminated})]
    return status


def _container(pod: Object, state: dict[str, Any]) -> dict[str, Any]:
    image = trainer_container(pod).get("image", "")
    return {
        "name": CONTAINER, "image": image, "restartCount": 0, "ready": "running" in state,
        "started": "running" in state, "state": state,
    }  # fmt: skip


def _with(pod: Object, now: str, **conditions: tuple[str, str, str]) -> Object:
    """The pod's status with these conditions (status, reason, message) set."""
    status: Object = copy_json(pod["status"])
    listed: list[dict[str, str]] = status.setdefault("conditions", [])
    for kind, (value, reason, message) in conditions.items():
        old = next((c for c in listed if c["type"] == kind), None)
        moved = old["lastTransitionTime"] if old is not None and old["status"] == value else now
        new = {"type": kind, "status": value, "lastTransitionTime": moved}
        new |= {k: v for k, v in (("reason", reason), ("message", message)) if v}
        if old is None:
            listed.append(new)
        else:
            listed[listed.index(old)] = new
    return status
