"""FakeCluster keeps the contract, and its faults are faults."""

from __future__ import annotations

import pytest
from trainrun_operator.errors import Unavailable
from trainrun_operator.testing import FakeClock, FakeCluster
from trainrun_operator.testing.cluster import OperatorKilled
from trainrun_operator.testing.world import World

from tests.operator.contract_cluster import ClusterContract, Subject


class TestFakeCluster(ClusterContract):
    """The contract."""

    @pytest.fixture
    def subject(self) -> Subject:
        """A fake cluster with one node and a job controller."""
        clock = FakeClock()
        cluster = FakeCluster(clock)
        world = World(clock, cluster)
        world.add_node("n0")
        return Subject(cluster, world.add_run, world.jobs.reconcile_all)


def test_departed_pods_are_forgotten_after_ten_minutes():
    """Evidence is bounded."""
    clock = FakeClock()
    cluster = FakeCluster(clock)
    world = World(clock, cluster)
    world.add_node("n0")
    contract = TestFakeCluster()
    subject = Subject(cluster, world.add_run, world.jobs.reconcile_all)
    key, run = contract.run(subject)
    contract.job(subject, run)
    cluster.store.remove("Pod", key._replace(name="a-a0-worker-0"))
    clock.advance(600)
    assert len(cluster.departed_pods(key)) == 1
    clock.advance(1)
    assert cluster.departed_pods(key) == []


@pytest.mark.parametrize("fault", [Unavailable("later"), OperatorKilled()], ids=["outage", "kill"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_hook_may_fail_any_call_before_or_after_its_effect(fault, after):
    """A crash after a write leaves the write."""
    clock = FakeClock()
    cluster = FakeCluster(clock)
    world = World(clock, cluster)
    key = world.add_run("a")
    run = cluster.get_run(key)

    def strike(call: str) -> None:
        if call == "replace_run_status":
            raise fault

    setattr(cluster, "after" if after else "before", strike)
    with pytest.raises(type(fault)):
        cluster.replace_run_status({**run, "status": {"phase": "X"}})
    assert ("status" in world.cluster.store.get("TrainingRun", key)) == after


@pytest.mark.parametrize("times", [0, 1, 2])
def test_watch_events_may_be_lost_or_doubled(times):
    """As often as told."""
    cluster = FakeCluster(FakeClock())
    heard = []
    cluster.deliveries = lambda event: times
    cluster.subscribe(heard.append)
    World(FakeClock(), cluster).add_run("a")
    assert len(heard) == times
