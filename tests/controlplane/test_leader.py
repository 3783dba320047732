"""With --leader-elect one of two operators works; the other one takes over by a real Lease, and runs go on."""

from __future__ import annotations

import pytest

from tests.controlplane.operator_process import OperatorProcess
from tests.controlplane.pods import said
from tests.controlplane.rights import OWN_NAMESPACE
from tests.controlplane.stage import Stage
from tests.controlplane.waiting import wait_for


def leads(operator: OperatorProcess) -> bool:
    """Whether it says so."""
    return "trainrun_leader 1.0" in operator.get("/metrics")


@pytest.mark.parametrize("end", ["asked-to-stop", "killed"])
def test_a_standby_takes_over(stage: Stage, end: str) -> None:
    """At once when the lease is given back, after its duration when its holder is silent; no attempt is lost."""
    with stage.operator("one", "--leader-elect") as first, stage.operator("two", "--leader-elect") as second:
        wait_for(lambda: leads(first) or leads(second), "one to lead")
        leader, standby = (first, second) if leads(first) else (second, first)
        stage.create_run("a")
        pod = stage.wait_running("a", 0)[0]
        assert not leads(standby)
        if end == "killed":
            leader.process.kill()
        else:
            assert leader.process.stop() == 0
        stage.trainers.end(pod, 30, said(pod, 30, "DeviceSuspect", step=7))
        wait_for(lambda: leads(standby), "the standby to lead")
        stage.trainers.finish(stage.wait_running("a", 1))
        stage.wait_status("a", phase="Succeeded")
        assert stage.attempts("a") == [(0, "DeviceSuspect"), (1, "Done")]


def test_a_leader_whose_lease_is_taken_ends(stage: Stage) -> None:
    """With its own exit code; the kubelet starts it again as a standby."""
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{OWN_NAMESPACE}/leases/trainrun-operator-{stage.namespace}"
    with stage.operator("one", "--leader-elect") as operator:
        wait_for(lambda: leads(operator), "it to lead")
        stage.api.merge(lease, {"spec": {"holderIdentity": "usurper"}})
        wait_for(lambda: not operator.get("/healthz"), "it to end")
        assert operator.process.stop() == 3
    assert stage.api.get(lease)["spec"]["holderIdentity"] == "usurper"
