"""What a pass asks for beyond what it always reads."""

from __future__ import annotations

import pytest
from trainrun_operator.clock import Clock
from trainrun_operator.cluster import Key
from trainrun_operator.core.pytorchjob import render
from trainrun_operator.gather import Gatherer
from trainrun_operator.senses import Senses
from trainrun_operator.testing import FakeClock, FakeCluster
from trainrun_operator.testing.world import World


def gatherer(cluster: FakeCluster, clock: Clock) -> Gatherer:
    """With senses that have heard nothing."""
    return Gatherer(cluster, clock, Senses(15.0, 60.0))


@pytest.mark.parametrize(("seconds", "warning"), [(2, ""), (3, "exceeded quota")], ids=["too early", "late"])
def test_missing_pods_are_asked_about_when_they_are_late(seconds: int, warning: str) -> None:
    """An attempt on record whose job has no pods."""
    clock = FakeClock()
    cluster = FakeCluster(clock)
    key = World(clock, cluster).add_run("a")
    run = cluster.get_run(key)
    assert run is not None
    attempt = {"number": 0, "job": "a-a0", "replicas": 2, "startedAt": clock.now().isoformat()}
    run = cluster.replace_run_status({**run, "status": {"attempts": [attempt]}})
    cluster.create_job(render(run, 0, (), 2))
    cluster.warnings["a-a0"] = "exceeded quota"
    clock.advance(seconds)
    gathered = gatherer(cluster, clock).gather(Key(key.namespace, key.name))
    assert gathered is not None
    assert [job.warning for job in gathered.observed.jobs] == [warning]
