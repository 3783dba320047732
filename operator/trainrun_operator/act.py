"""Carries a Decision out: status first, then objects, then events. Each action may be repeated by a successor.

Every write has a precondition (resourceVersion or uid), so a stale decision fails instead of harming. Decides
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from trainrun_api.contract import Label

from trainrun_operator.cluster import Cluster, Key, Object
from trainrun_operator.core.decision import (
    Action,
    CreateJob,
    Decision,
    DeleteRun,
    ForceDeletePod,
    RecordEvent,
    ReplacePod,
    StopJob,
)
from trainrun_operator.core.pod import AGENT_IMAGE
from trainrun_operator.core.pytorchjob import render
from trainrun_operator.errors import AlreadyExists, NotFound
from trainrun_operator.job_controller import JOB_NAME_LABEL

FEW_PODS = 16
"""A job's pods up to which each is deleted by itself. One call for all of a job has the API server go through all pods
of the namespace, 0.1 s of CPU among 8,000, as much as 20 single deletions; hundreds of those would be seconds of every
recovery."""


def write_status(cluster: Cluster, run: Object, decision: Decision) -> Object:
    """Write the decision's status if it differs; returns the run as it is then.

    Raises Conflict (somebody wrote the run meanwhile: gather again), NotFound, Unavailable.
    """
    if decision.status == (run.get("status") or {}):
        return run
    return cluster.replace_run_status({**run, "status": decision.status})


def perform(cluster: Cluster, run: Object, action: Action, agent_image: str = AGENT_IMAGE) -> bool:
    """One action; returns whether it changed anything: what is already so is left so.

    Raises Refused (the job was refused), Unavailable.
    """
    key = Key(run["metadata"]["namespace"], run["metadata"]["name"])
    try:
        match action:
            case CreateJob():
                job = render(
                    run,
                    action.attempt,
                    action.excluded_nodes,
                    action.replicas,
                    spares=action.spares,
                    agent_image=agent_image,
                )
                cluster.create_job(job)
            case StopJob():
                return _stop(cluster, key, action)
            case ForceDeletePod():
                cluster.delete_pod(Key(key.namespace, action.name), uid=action.uid, grace_seconds=0)
            case ReplacePod():
                _replace(cluster, key, action)
            case DeleteRun():
                cluster.delete_run(key, uid=action.uid)
            case RecordEvent():
                cluster.record_event(run, type=action.type, reason=action.reason, message=action.message)
    except AlreadyExists:
        return False  # ours: adopted by the next pass; another's: waited for
    except NotFound:
        return False
    return True


def describe(action: Action) -> str:
    """An action as one line for the journal."""
    match action:
        case CreateJob():
            avoided = f" avoiding {', '.join(action.excluded_nodes)}" if action.excluded_nodes else ""
            spares = f" and {action.spares} spares" if action.spares else ""
            return f"create the job of attempt {action.attempt} with {action.replicas} workers{spares}{avoided}"
        case StopJob():
            return f"stop job {action.name} ({action.mode}, grace {action.grace_seconds} s)"
        case ForceDeletePod():
            return f"remove pod {action.name} by force"
        case ReplacePod():
            return f"take pod {action.name} from its job and remove it by force"
        case DeleteRun():
            return "delete the run"
        case RecordEvent():
            return f"event {action.reason}"


def _stop(cluster: Cluster, run: Key, action: StopJob) -> bool:
    """The job and its pods, with the wanted grace.

    Save: the job first, or training-operator would make its pods again. Abort: the pods first. A job's deletion has the
    garbage collector delete the pods with their own grace, and a kubelet that has begun to wait for that is not hurried
    by a shorter one: survivors held their nodes for a minute. That a pod which is deleted fails the job is no harm now.
    """
    has_effect = action.mode == "abort" and _delete_pods(cluster, run, action)
    with suppress(NotFound):
        cluster.delete_job(Key(run.namespace, action.name), uid=action.uid)
        has_effect = True
    return (action.mode == "save" and _delete_pods(cluster, run, action)) or has_effect


def _delete_pods(cluster: Cluster, run: Key, action: StopJob) -> bool:
    """Those that are not leaving that soon already; whether there were any."""
    pods = (pod["metadata"] for pod in cluster.list_pods(run) if _belongs_to(pod, action.uid))
    due = [metadata for metadata in pods if _is_longer(metadata, action.grace_seconds)]
    if len(due) > FEW_PODS:
        uid, attempt = due[0]["labels"].get(Label.RUN_UID, ""), int(due[0]["labels"][Label.ATTEMPT])
        cluster.delete_pods(run, run_uid=uid, attempt=attempt, grace_seconds=action.grace_seconds)
        return True
    for metadata in due:
        with suppress(NotFound):
            key = Key(run.namespace, metadata["name"])
            cluster.delete_pod(key, uid=metadata["uid"], grace_seconds=action.grace_seconds)
    return bool(due)


def _replace(cluster: Cluster, run: Key, action: ReplacePod) -> None:
    """Out of the job's sight first; raises NotFound."""
    pod = Key(run.namespace, action.name)
    known = (p["metadata"] for p in cluster.list_pods(run))
    if any(m["uid"] == action.uid and JOB_NAME_LABEL in m["labels"] for m in known):
        cluster.detach_pod(pod, uid=action.uid)
    cluster.delete_pod(pod, uid=action.uid, grace_seconds=0)


def _belongs_to(pod: Object, job_uid: str) -> bool:
    return any(ref["uid"] == job_uid for ref in pod["metadata"].get("ownerReferences") or [])


def _is_longer(metadata: Mapping[str, object], grace_seconds: int) -> bool:
    """Whether the pod is not being deleted yet, or with a longer grace than wanted."""
    grace = metadata.get("deletionGracePeriodSeconds")
    return not isinstance(grace, int) or grace > grace_seconds
