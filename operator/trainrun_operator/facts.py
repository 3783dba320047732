"""Pure parsing: Kubernetes objects as JSON -> the facts of core/observed.py. No I/O, no judgement."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from trainrun_api.contract import UNDERSTOOD_SCHEMAS, Env, Label, TerminationMessage

from trainrun_operator import hyperpod
from trainrun_operator.cluster import Object
from trainrun_operator.core.observed import JobFacts, NodeFacts, PodFacts, Terminated
from trainrun_operator.core.times import from_text
from trainrun_operator.job_controller import REPLICA_INDEX_LABEL

CONTAINER = "pytorch"
"""training-operator insists on this name."""
SAME_TROUBLE = timedelta(seconds=5)
"""Warnings about pods that are made one after the other come within this time."""


def job_facts(job: Object, run_uid: str) -> JobFacts | None:
    """Facts of a PyTorchJob; None if it carries no attempt number (not made by us)."""
    metadata, status = job["metadata"], job.get("status") or {}
    attempt = _number((metadata.get("labels") or {}).get(Label.ATTEMPT))
    if attempt is None:
        return None
    conditions = {c["type"]: c for c in status.get("conditions") or []}
    is_suspended = bool((job["spec"].get("runPolicy") or {}).get("suspend")) or _is_true(conditions, "Suspended")
    return JobFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        attempt=attempt,
        is_owned=run_uid in _owner_uids(job),
        is_deleting="deletionTimestamp" in metadata,
        is_suspended=is_suspended,
        has_succeeded=_is_true(conditions, "Succeeded"),
        has_failed=_is_true(conditions, "Failed"),
        message=str(conditions.get("Failed", {}).get("message", "")),
        started_at=from_text(status.get("startTime")),
    )


def pod_facts(pod: Object, run_uid: str, job_uids: Iterable[str], *, is_departed: bool) -> PodFacts | None:
    """Facts of a worker pod; None if it is not one of ours."""
    metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    labels = metadata.get("labels") or {}
    attempt, index = _number(labels.get(Label.ATTEMPT)), _number(labels.get(REPLICA_INDEX_LABEL))
    if attempt is None or index is None:
        return None
    conditions = {c["type"]: c for c in status.get("conditions") or []}
    owners = _owner_uids(pod)
    container: Mapping[str, Any] = next((c for c in spec.get("containers") or [] if c["name"] == CONTAINER), {})
    waiting = _waiting(status)
    terminates_by = from_text(metadata.get("deletionTimestamp"))
    grace = timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)
    scheduled = conditions.get("PodScheduled", {})
    is_scheduled = bool(spec.get("nodeName"))
    return PodFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        index=index,
        attempt=attempt,
        is_owned=_is_of_run(container, run_uid, owners, job_uids),
        job_uid=next(iter(owners), None),
        node=spec.get("nodeName"),
        phase=status.get("phase", "Pending"),
        created_at=_time(metadata["creationTimestamp"]),
        is_scheduled=is_scheduled,
        scheduled_at=from_text(scheduled.get("lastTransitionTime")) if is_scheduled else None,
        pending_because="" if is_scheduled else str(scheduled.get("message", "")),
        waiting_reason=str(waiting.get("reason", "")),
        waiting_message=str(waiting.get("message", "")),
        image=str(container.get("image", "")),
        image_id=str(_trainer_status(status).get("imageID", "")),
        terminated=_terminated(status, attempt),
        reason=str(status.get("reason", "")),
        message=str(status.get("message", "")),
        disruption=str(conditions["DisruptionTarget"].get("reason", "Unknown"))
        if _is_true(conditions, "DisruptionTarget")
        else "",
        deleted_at=terminates_by - grace if terminates_by else None,
        terminates_by=terminates_by,
        is_departed=is_departed,
    )


def node_facts(node: Object, reachable_since: datetime | None = None) -> NodeFacts:
    """Facts of one node; stale if it was last heard of before `reachable_since`, the end of an API outage."""
    metadata, spec = node["metadata"], node.get("spec") or {}
    conditions = (node.get("status") or {}).get("conditions") or []
    ready: Mapping[str, Any] = next((c for c in conditions if c["type"] == "Ready"), {})
    is_ready = {"True": True, "False": False, "Unknown": False}.get(ready.get("status", ""))
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    mark = hyperpod.mark(labels, spec.get("taints") or [])
    changed = from_text(ready.get("lastTransitionTime"))
    heartbeat = from_text(ready.get("lastHeartbeatTime"))
    is_cordoned = bool(spec.get("unschedulable"))
    is_stale = reachable_since is not None and not is_ready and (heartbeat is None or heartbeat < reachable_since)
    return NodeFacts(
        name=metadata["name"],
        ready=is_ready,
        not_ready_since=changed if not is_ready else None,
        ready_since=changed if is_ready else None,
        mark=mark,
        fault=hyperpod.fault(labels, annotations),
        instance_group=labels.get(hyperpod.INSTANCE_GROUP_LABEL, ""),
        is_cordoned=is_cordoned,
        is_stale=is_stale,
    )


def deviates(node: NodeFacts) -> bool:
    """Whether the rules need to hear of it; healthy nodes are only counted."""
    return node.ready is not True or bool(node.mark) or node.is_cordoned


def newest_warning(events: Iterable[Object]) -> str:
    """What the newest Events say, empty if there are none: older ones may tell of a trouble that has passed. Of those
    told together the first by alphabet, so that the same trouble of many pods is told in the same words."""
    told = [(_told_at(event), str(event.get("message", ""))) for event in events]
    newest = max((at for at, _ in told), default=None)
    return min((text for at, text in told if newest is not None and newest - at <= SAME_TROUBLE), default="")


def _told_at(event: Object) -> datetime:
    """For the last time; what is not counted has no such time."""
    return _time(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])


def _terminated(status: Mapping[str, Any], attempt: int) -> Terminated | None:
    """The end of the trainer container, if it has ended."""
    end = (_trainer_status(status).get("state") or {}).get("terminated")
    if end is None:
        return None
    raw = _json(end.get("message"))
    schema = raw.get("schema") if raw is not None else None
    message, unknown = None, None
    if raw is not None and isinstance(schema, int):
        if schema not in UNDERSTOOD_SCHEMAS:
            unknown = schema
        elif raw.get("attempt") == attempt:  # a file left by an earlier pod on the same path says nothing
            message = _message(raw)
    return Terminated(
        exit_code=int(end.get("exitCode", 1)),
        reason=str(end.get("reason", "")),
        finished_at=from_text(end.get("finishedAt")),
        message=message,
        unknown_schema=unknown,
    )


def _trainer_status(status: Mapping[str, Any]) -> Mapping[str, Any]:
    containers = status.get("containerStatuses") or []
    return next((c for c in containers if c["name"] == CONTAINER), {})


def _message(raw: Mapping[str, Any]) -> TerminationMessage | None:
    """A message of an understood schema; None if its fields have impossible types."""
    message = TerminationMessage.from_dict(raw)
    numbers = (message.exit_code, message.attempt, message.step or 0, message.target_step or 0)
    return message if all(isinstance(n, int) for n in numbers) else None


def _waiting(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first container, init containers included, that waits for a reason."""
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    states = [(c.get("state") or {}).get("waiting") for c in containers]
    return next((w for w in states if w and w.get("reason")), {})


def _is_of_run(container: Mapping[str, Any], run_uid: str, owners: set[str], job_uids: Iterable[str]) -> bool:
    """By the run's uid in the environment; pods without it by their job."""
    uid = next((e.get("value") for e in container.get("env") or [] if e.get("name") == Env.RUN_UID), None)
    return uid == run_uid if uid is not None else bool(owners & set(job_uids))


def _owner_uids(obj: Object) -> set[str]:
    return {ref["uid"] for ref in obj["metadata"].get("ownerReferences") or []}


def _is_true(conditions: Mapping[str, Mapping[str, Any]], kind: str) -> bool:
    return conditions.get(kind, {}).get("status") == "True"


def _json(text: object) -> dict[str, Any] | None:
    """A JSON object, or None for anything else: users' programs may write what they like."""
    if not isinstance(text, str) or not text.startswith("{"):
        return None
    try:
        raw = json.loads(text)
    except ValueError:
        return None
    return raw if isinstance(raw, dict) else None


def _number(text: object) -> int | None:
    return int(text) if isinstance(text, str) and text.isdigit() else None


def _time(text: str) -> datetime:
    moment = from_text(text)
    assert moment is not None
    return moment
