"""A right that is missing is said by name, and nothing is lost: given back, the run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from trainrun_operator.act import FEW_PODS
from trainrun_operator.cluster import Object

from tests.controlplane.operator_process import OperatorProcess
from tests.controlplane.pods import said
from tests.controlplane.rights import may, wait_granted
from tests.controlplane.stage import Stage
from tests.controlplane.waiting import wait_for


@contextmanager
def without(stage: Stage, resource: str, verb: str) -> Iterator[None]:
    """The operator's role in the test's namespace lacks the verb, and the API server knows, while the block lasts."""
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{stage.namespace}/roles/trainrun"
    rules = stage.api.get(role)["rules"]
    (group,) = {rule["apiGroups"][0] for rule in rules if resource in rule["resources"]}
    stage.api.merge(role, {"rules": [fewer(rule, resource, verb) for rule in rules]})
    wait_for(lambda: not may(stage.api, stage.namespace, group, resource, verb), f"{verb} {resource} to be refused")
    yield
    stage.api.merge(role, {"rules": rules})
    wait_granted(stage.api, stage.namespace, rules)


def fewer(rule: Object, resource: str, verb: str) -> Object:
    """The rule without the verb, if it is about the resource; an unused verb keeps it valid."""
    if resource not in rule["resources"]:
        return rule
    return {**rule, "verbs": [v for v in rule["verbs"] if v != verb] or ["none"]}


def log_of(operator: OperatorProcess) -> str:
    """All that it said so far."""
    return operator.process.log.read_text()


def wait_until_told(operator: OperatorProcess, resource: str, verb: str) -> None:
    """Until its log says which right it lacks."""
    words = f'cannot {verb} resource \\"{resource}\\"'
    wait_for(lambda: words in log_of(operator), "the log to tell", seen=lambda: operator.process.tail())


@pytest.mark.parametrize(
    ("resource", "verb"),
    [
        ("trainingruns", "get"),
        ("trainingruns/status", "update"),
        ("pytorchjobs", "create"),
        ("pods", "watch"),
        ("pods", "list"),
        ("events", "create"),
    ],
)
def test_a_missing_right_is_said_by_name(stage: Stage, resource: str, verb: str) -> None:
    """In the log, with verb and resource; not as a traceback. From the start: lists and watches are asked for once."""
    with without(stage, resource, verb), stage.operator() as operator:
        stage.create_run("a")
        wait_until_told(operator, resource, verb)
        assert "Traceback" not in log_of(operator)
    with stage.operator():
        stage.wait_running("a", 0)


def test_a_right_that_is_missing_for_a_job_is_said_in_the_condition(stage: Stage) -> None:
    """Who looks at the run sees it."""
    with stage.operator(), without(stage, "pytorchjobs", "create"):
        stage.create_run("a")
        condition = stage.wait_reason("a", "CreationRefused")
        assert 'cannot create resource "pytorchjobs"' in condition["message"]


@pytest.mark.parametrize(("resource", "verb"), [("pytorchjobs", "get"), ("pytorchjobs", "delete"), ("pods", "delete")])
def test_an_end_without_a_right_for_it_is_told(stage: Stage, resource: str, verb: str) -> None:
    """The failed attempt's job or pods stay until the right is given."""
    with stage.operator() as operator, without(stage, resource, verb):
        stage.create_run("a", {"spec": {"workers": {"replicas": 1}, "config": {"global_batch_rows": 4}}})
        first = stage.wait_running("a", 0)[0]
        stage.trainers.end(first, 30, said(first, 30, "DeviceSuspect", step=7))
        wait_until_told(operator, resource, verb)
    with stage.operator():
        goes_on(stage)


def test_an_end_of_many_without_the_right_to_delete_a_collection_is_told(stage: Stage) -> None:
    """They hang: once one has failed, the job's controller deletes the others too, and perhaps only few are left."""
    many = FEW_PODS + 1
    with stage.operator() as operator, without(stage, "pods", "deletecollection"):
        stage.create_run("a", {"spec": {"workers": {"replicas": many}, "config": {"global_batch_rows": 4 * many}}})
        pods = stage.wait_running("a", 0)
        stage.wait_reason("a", "Running")
        stage.trainers.hang(pods)
        wait_until_told(operator, "pods", "deletecollection")
        assert len(stage.pods("a", 0)) == many
    with stage.operator():
        goes_on(stage)


def goes_on(stage: Stage) -> None:
    """Run "a" has its second attempt, and nothing of its first."""
    stage.wait_running("a", 1)
    wait_for(lambda: [j["metadata"]["name"] for j in stage.jobs("a")] == ["a-a1"], "the first job to be gone")
