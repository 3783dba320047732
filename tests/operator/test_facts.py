"""Kubernetes objects as facts: what is absent, odd or foreign."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from trainrun_api.contract import Label
from trainrun_operator.facts import job_facts, newest_warning, node_facts, pod_facts
from trainrun_operator.job_controller import REPLICA_INDEX_LABEL
from trainrun_operator.kube.trim import trimmed

T0 = datetime(2026, 1, 1, tzinfo=UTC)
HEALTH = "sagemaker.amazonaws.com/node-health-status"


def node(
    name: str = "n0",
    status: str | None = "True",
    *,
    labels=None,
    taints=None,
    beat: str = "2026-01-01T00:00:00Z",
    **spec,
) -> dict[str, Any]:
    """A Node object."""
    conditions = [{"type": "MemoryPressure", "status": "False"}]
    if status is not None:
        conditions.append(
            {"type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z", "lastHeartbeatTime": beat}
        )
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": spec | ({"taints": taints} if taints else {}),
        "status": {"conditions": conditions},
    }


def job(**changes) -> dict[str, Any]:
    """A PyTorchJob of run `run-uid`."""
    base = {
        "metadata": {
            "name": "a-a0",
            "uid": "job-0",
            "labels": {Label.ATTEMPT: "0"},
            "ownerReferences": [{"uid": "run-uid"}],
        },
        "spec": {},
    }
    return base | changes


def pod(status=None, *, env=None, labels=None, node_name="n0", **metadata) -> dict[str, Any]:
    """A Pod of job-0."""
    return {
        "metadata": {
            "name": "a-a0-worker-0", "uid": "pod-0", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {Label.ATTEMPT: "0", REPLICA_INDEX_LABEL: "0"} if labels is None else labels,
            "ownerReferences": [{"uid": "job-0"}],
        } | metadata,
        "spec": {
            "nodeName": node_name,
            "containers": [{"name": "side"}, {"name": "pytorch", "image": "i", "env": env or []}],
        },
        "status": status or {"phase": "Running"},
    }  # fmt: skip


def ended(message: object, code: int = 1) -> dict[str, Any]:
    """Status of a pod whose container ended with this message."""
    text = message if isinstance(message, str) else json.dumps(message)
    terminated = {"exitCode": code, "message": text, "finishedAt": "2026-01-01T00:01:00Z"}
    return {
        "phase": "Failed",
        "containerStatuses": [{"name": "side", "state": {}}, {"name": "pytorch", "state": {"terminated": terminated}}],
    }


@pytest.mark.parametrize(
    ("obj", "ready", "mark"),
    [
        (node(), True, ""),
        (node(status="False"), False, ""),
        (node(status="Unknown"), False, ""),
        (node(status=None), None, ""),
        (node(labels={HEALTH: "Schedulable"}), True, ""),
        (node(labels={HEALTH: "UnschedulablePendingReboot"}), True, "UnschedulablePendingReboot"),
        (node(labels={HEALTH: "SchedulablePreferred"}), True, "SchedulablePreferred"),
        (node(taints=[{"key": HEALTH, "value": "Unschedulable", "effect": "NoSchedule"}]), True, "Unschedulable"),
        (node(taints=[{"key": HEALTH, "effect": "NoSchedule"}]), True, "Unschedulable"),
        (node(taints=[{"key": "other", "value": "x"}]), True, ""),
    ],
    ids=[
        "healthy", "not ready", "unknown", "never spoke", "label fine", "label bad", "label unknown is bad", "taint",
        "taint without value", "another taint",
    ],
)  # fmt: skip
def test_health_of_a_node(obj, ready, mark):
    """Unknown health values are bad, a missing label is no opinion."""
    facts = node_facts(obj)
    assert (facts.ready, facts.mark) == (ready, mark)


@pytest.mark.parametrize(
    ("obj", "is_stale"),
    [
        (node(status="Unknown"), True),
        (node(status="Unknown", beat="2026-01-01T00:10:00Z"), False),
        (node(status="True"), False),
        (node(status=None), True),
    ],
    ids=["not heard since", "heard since", "ready", "never heard"],
)
def test_after_an_outage_a_silent_node_is_stale_until_it_is_heard(obj, is_stale):
    """The end of the outage was at 00:05."""
    assert node_facts(obj, T0 + timedelta(minutes=5)).is_stale == is_stale
    assert not node_facts(obj).is_stale


@pytest.mark.parametrize(
    ("obj", "field", "value"),
    [
        (job(), "is_suspended", False),
        (job(spec={"runPolicy": {"suspend": True}}), "is_suspended", True),
        (job(status={"conditions": [{"type": "Suspended", "status": "True"}]}), "is_suspended", True),
        (job(status={"conditions": [{"type": "Suspended", "status": "False"}]}), "is_suspended", False),
        (job(status={"conditions": [{"type": "Succeeded", "status": "True"}]}), "has_succeeded", True),
        (job(status={"conditions": [{"type": "Failed", "status": "True", "message": "m"}]}), "message", "m"),
        (job(metadata=job()["metadata"] | {"deletionTimestamp": "x"}), "is_deleting", True),
        (job(metadata=job()["metadata"] | {"ownerReferences": []}), "is_owned", False),
        (job(status={"startTime": "2026-01-01T00:00:00Z"}), "started_at", T0),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_facts_of_a_job(obj, field, value):
    """Conditions, owner, deletion."""
    assert getattr(job_facts(obj, "run-uid"), field) == value


@pytest.mark.parametrize("labels", [{}, {Label.ATTEMPT: "x"}], ids=["none", "odd"])
def test_objects_without_an_attempt_number_are_not_ours(labels):
    """A person's job or pod under our label."""
    assert job_facts(job(metadata={"name": "x", "uid": "y", "labels": labels}), "run-uid") is None
    assert pod_facts(pod(labels=labels), "run-uid", [], is_departed=False) is None


@pytest.mark.parametrize(
    ("env", "jobs", "is_owned"),
    [
        ([{"name": "TRAINRUN_RUN_UID", "value": "run-uid"}], [], True),
        ([{"name": "TRAINRUN_RUN_UID", "value": "old-uid"}], ["job-0"], False),
        ([], ["job-0"], True),
        ([], [], False),
    ],
    ids=["ours", "the previous run's", "by its job", "unknown"],
)
def test_whose_pod_it_is(env, jobs, is_owned):
    """A run of the same name may have left it."""
    assert pod_facts(pod(env=env), "run-uid", jobs, is_departed=False).is_owned == is_owned


@pytest.mark.parametrize(
    ("message", "code", "unknown"),
    [
        ({"schema": 1, "attempt": 0, "exit_code": 31, "new": 1}, 31, None),
        ({"schema": 0, "attempt": 0, "exit_code": 31}, 31, None),
        ({"schema": 2, "attempt": 0, "exit_code": 31}, None, 2),
        ({"schema": 1, "attempt": 5, "exit_code": 31}, None, None),
        ({"schema": "1", "attempt": 0}, None, None),
        ({"schema": 1, "attempt": 0, "exit_code": "x"}, None, None),
        ("Traceback (most recent call last)", None, None),
        ("{broken", None, None),
        ("[1]", None, None),
        ("", None, None),
    ],
    ids=[
        "ours", "previous schema", "newer schema", "another attempt's", "odd schema", "odd code", "a log", "broken",
        "no object", "nothing",
    ],
)  # fmt: skip
def test_a_termination_message_counts_only_if_it_is_one(message, code, unknown):
    """Users' programs may write what they like."""
    end = pod_facts(pod(ended(message)), "run-uid", ["job-0"], is_departed=False).terminated
    assert (end.message.exit_code if end.message else None) == code
    assert (end.unknown_schema, end.exit_code) == (unknown, 1)


def test_a_pending_pod_has_the_schedulers_words():
    """And no node."""
    condition = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    facts = pod_facts(
        pod({"phase": "Pending", "conditions": [condition]}, node_name=None), "run-uid", [], is_departed=False
    )
    assert (facts.is_scheduled, facts.scheduled_at, facts.pending_because) == (False, None, "0/3 nodes are available")


def test_init_containers_may_be_the_ones_that_wait():
    """The agent of a user's image comes from one."""
    status = {
        "phase": "Pending",
        "initContainerStatuses": [{"name": "agent", "state": {"waiting": {"reason": "ErrImagePull", "message": "m"}}}],
        "containerStatuses": [{"name": "pytorch", "state": {"waiting": {"reason": "PodInitializing"}}}],
    }
    assert pod_facts(pod(status), "run-uid", [], is_departed=False).waiting_reason == "ErrImagePull"


def test_a_deletion_has_a_beginning_and_an_end():
    """deletionTimestamp is the end of the grace."""
    facts = pod_facts(
        pod(deletionTimestamp="2026-01-01T00:01:00Z", deletionGracePeriodSeconds=30), "u", [], is_departed=False
    )
    assert (facts.deleted_at, facts.terminates_by) == (T0 + timedelta(seconds=30), T0 + timedelta(seconds=60))


@pytest.mark.parametrize(
    ("condition", "disruption"),
    [
        ({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}, "PreemptionByScheduler"),
        ({"type": "DisruptionTarget", "status": "True"}, "Unknown"),
        ({"type": "DisruptionTarget", "status": "False", "reason": "X"}, ""),
    ],
    ids=["named", "unnamed", "false"],
)
def test_a_disruption_is_named(condition, disruption):
    """Whatever its reason."""
    assert (
        pod_facts(pod({"phase": "Running", "conditions": [condition]}), "u", [], is_departed=False).disruption
        == disruption
    )


def test_the_image_that_runs_is_known_with_its_digest():
    """As soon as the container is there; also through the watch cache, which keeps little of a pod."""
    obj = pod({"containerStatuses": [{"name": "pytorch", "imageID": "r/t@sha256:1", "state": {}}]})
    for seen in (obj, trimmed("Pod", obj)):
        assert pod_facts(seen, "run-uid", [], is_departed=False).image_id == "r/t@sha256:1"


ACCOUNT, QUOTA, QUOTA_TOO = (
    "error looking up service account",
    "exceeded quota: a-a0-worker-0",
    "exceeded quota: a-a0-worker-1",
)


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ([], ""),
        ([(ACCOUNT, 0), (QUOTA, 600)], QUOTA),
        ([(QUOTA, 0), (ACCOUNT, 600)], ACCOUNT),
        ([(QUOTA_TOO, 600), (QUOTA, 595)], QUOTA),
        ([(QUOTA_TOO, 600), (QUOTA, 594)], QUOTA_TOO),
    ],
    ids=["nothing", "a trouble that has passed", "a new one", "the same of two pods", "only the newest"],
)
def test_the_newest_warning_is_told(told, text):
    """Events are kept for an hour; of one trouble the words must not change with the pod."""
    times = [(message, (T0 + timedelta(seconds=after)).isoformat()) for message, after in told]
    assert newest_warning({"message": message, "lastTimestamp": time} for message, time in times) == text


@pytest.mark.parametrize(
    "time", [{"eventTime": "2026-01-01T00:10:00.000000Z"}, {"eventTime": None}], ids=["one", "none"]
)
def test_a_warning_that_is_not_counted_has_another_time(time):
    """Of its only telling, or of its creation."""
    newer = {"message": QUOTA, "lastTimestamp": None, "metadata": {"creationTimestamp": "2026-01-01T00:10:00Z"}} | time
    assert newest_warning([{"message": ACCOUNT, "lastTimestamp": "2026-01-01T00:00:00Z"}, newer]) == QUOTA
