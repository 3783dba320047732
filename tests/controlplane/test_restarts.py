"""Operators die, are two, or meet an API server that is away: no attempt is lost or doubled."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.controlplane.kubelets import said
from tests.controlplane.stage import Stage
from tests.controlplane.test_operator import finish
from tests.controlplane.waiting import wait_for


def test_a_killed_operator_s_successor_goes_on(stage: Stage) -> None:
    """Killed with SIGKILL while an attempt runs; what happened meanwhile is seen by the next one."""
    with stage.operator("one") as operator:
        stage.create_run("a")
        first = stage.wait_running("a", 0)[0]
        operator.process.kill()
    stage.kubelets.end(first, 30, said(first, 30, "DeviceSuspect", step=7))
    with stage.operator("two"):
        finish(stage, stage.wait_running("a", 1))
        stage.wait_status("a", phase="Succeeded")
    assert stage.attempts("a") == [(0, "DeviceSuspect"), (1, "Done")]


@pytest.mark.parametrize("after_seconds", [0.0, 0.05, 0.1, 0.2, 0.4])
def test_an_operator_killed_in_the_middle_of_a_restart_loses_nothing(stage: Stage, after_seconds: float) -> None:
    """At some moment between seeing a failure and the new job; the simulator kills between every two writes."""
    with stage.operator("one") as operator:
        stage.create_run("a")
        first = stage.wait_running("a", 0)[0]
        stage.kubelets.end(first, 30, said(first, 30, "DeviceSuspect", step=7))
        time.sleep(after_seconds)
        operator.process.kill()
    with stage.operator("two"):
        stage.wait_running("a", 1)
        wait_for(lambda: len(stage.jobs("a")) == 1, "one job to be left")
        assert stage.attempts("a") == [(0, "DeviceSuspect"), (1, None)]


def test_two_operators_at_once_are_harmless(stage: Stage) -> None:
    """Preconditions, not an election, keep them apart."""
    with stage.operator("one"), stage.operator("two"):
        stage.create_run("a")
        first = stage.wait_running("a", 0)[0]
        stage.kubelets.end(first, 30, said(first, 30, "DeviceSuspect", step=7))
        finish(stage, stage.wait_running("a", 1))
        stage.wait_status("a", phase="Succeeded")
        assert stage.attempts("a") == [(0, "DeviceSuspect"), (1, "Done")]


@contextmanager
def stopped_api_server(stage: Stage) -> Iterator[None]:
    """It accepts connections and says nothing."""
    pid = stage.plane.apiserver.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_an_outage_of_the_api_server_changes_nothing(stage: Stage) -> None:
    """Calls run into their time-outs; afterwards the run goes on in the same attempt."""
    with stage.operator() as operator:
        stage.create_run("a")
        pods = stage.wait_running("a", 0)
        with stopped_api_server(stage):
            time.sleep(25)
        wait_for(lambda: operator.get("/healthz") == "ok\n", "the operator to be well")
        finish(stage, pods)
        stage.wait_status("a", phase="Succeeded")
        assert stage.attempts("a") == [(0, "Done")]


def test_fifty_runs_at_once_settle(stage: Stage) -> None:
    """Each in one attempt, none lost or doubled."""
    names = [f"r{number:02}" for number in range(50)]
    with stage.operator():
        for name in names:
            stage.create_run(name, {"spec": {"workers": {"replicas": 1}}})
        for name in names:
            finish(stage, stage.wait_running(name, 0))
        for name in names:
            stage.wait_status(name, phase="Succeeded")
            assert stage.attempts(name) == [(0, "Done")]


def test_a_missing_right_is_said_by_name(stage: Stage) -> None:
    """In the log, with the verb; not as a traceback."""
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{stage.namespace}/roles/trainrun"
    rules = stage.api.get(role)["rules"]
    fewer = [rule for rule in rules if rule["resources"] != ["trainingruns/status"]]
    stage.api.merge(role, {"rules": fewer})
    with stage.operator() as operator:
        stage.create_run("a")

        def told() -> list[str]:
            return [str(line["message"]) for line in operator.lines() if line.get("type") == "error"]

        wait_for(told, "the log to tell")
        assert "cannot update resource" in told()[0]
        assert "trainingruns/status" in told()[0]
        stage.api.merge(role, {"rules": rules})
        stage.wait_running("a", 0)
