"""What a pass asks for beyond what it always reads."""

from __future__ import annotations

from typing import Any

import pytest
from trainrun_operator.clock import Clock
from trainrun_operator.cluster import Key, Object
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
    key = without_pods(cluster, clock)
    cluster.warnings["a-a0"] = [warned("exceeded quota")]
    clock.advance(seconds)
    assert warnings(gatherer(cluster, clock), key) == [warning]


def test_a_glance_tells_what_an_event_says() -> None:
    """Or it would take that back, and the next look would tell it again."""
    clock = FakeClock()
    cluster = FakeCluster(clock)
    key, gathers = without_pods(cluster, clock), gatherer(cluster, clock)
    gathers.gather(key)
    cluster.warnings["a-a0"] = [warned("exceeded quota")]
    calls: list[str] = []
    cluster.before = calls.append
    told = []
    for seconds in (2, 1, 9, 1):
        clock.advance(seconds)
        glanced = gathers.glance(key)
        assert glanced is not None
        told += [(job.warning, calls.count("job_warnings")) for job in glanced.observed.jobs]
    assert told == [("", 0), ("exceeded quota", 1), ("exceeded quota", 1), ("exceeded quota", 2)]
    assert not {"get_run", "get_job"} & set(calls)


def test_runs_that_wait_together_ask_in_turn() -> None:
    """A search reads all Events of the namespace: four at once, then two a second; nobody is left out."""
    clock = FakeClock()
    cluster = FakeCluster(clock)
    keys = [without_pods(cluster, clock, f"r{number}") for number in range(10)]
    cluster.warnings |= {f"r{number}-a0": [warned("exceeded quota")] for number in range(10)}
    gathers = gatherer(cluster, clock)
    clock.advance(3)
    told = []
    for _ in range(5):
        told.append(sum(warnings(gathers, key) == ["exceeded quota"] for key in keys))
        clock.advance(1)
    assert told == [4, 6, 8, 10, 10]


def test_missing_pods_are_asked_about_every_ten_seconds() -> None:
    """However many passes their fellows bring: the API server searches all Events of the namespace for the answer."""
    clock = FakeClock()
    cluster = FakeCluster(clock)
    key, gathers = without_pods(cluster, clock), gatherer(cluster, clock)
    told = []
    for second in range(3, 24):
        cluster.warnings["a-a0"] = [warned(f"said after {second} s")]
        clock.advance(3 if second == 3 else 1)
        told += warnings(gathers, key)
    assert sorted(set(told)) == ["said after 13 s", "said after 23 s", "said after 3 s"]
    assert told.count("said after 13 s") == 10


@pytest.mark.parametrize("condition", ["Failed", "Succeeded"])
def test_pods_are_listed_anew_when_their_job_is_over_without_their_word(condition: str) -> None:
    """The job is read live, pods come by a watch that may be behind: what they said must not be missed."""
    clock = FakeClock()
    cluster = FakeCluster(clock)
    world = World(clock, cluster)
    world.add_node("n0")
    key = world.add_run("a")
    run = cluster.get_run(key)
    assert run is not None
    attempt = {"number": 0, "job": "a-a0", "replicas": 2, "startedAt": clock.now().isoformat()}
    run = cluster.replace_run_status({**run, "status": {"attempts": [attempt]}})
    cluster.create_job(render(run, 0, (), 2))
    world.jobs.reconcile_all()
    pods = cluster.list_pods(key)
    calls: list[str] = []
    cluster.before = calls.append

    def hidden(run: Key) -> list[dict[str, Any]]:
        return pods if "refresh_pods" in calls else []

    cluster.list_pods = hidden  # type: ignore[method-assign]
    assert len(gather(cluster, clock, key)) == 0
    assert "refresh_pods" not in calls
    stored = cluster.store.get("PyTorchJob", Key(key.namespace, "a-a0"))
    assert stored is not None
    cluster.store.replace_status({**stored, "status": {"conditions": [{"type": condition, "status": "True"}]}})
    assert len(gather(cluster, clock, key)) == 2


@pytest.mark.parametrize(("label", "has_queue"), [("kueue.x-k8s.io/queue-name", True), ("team", False)])
def test_a_run_with_a_queue_is_known_by_its_label(label: str, has_queue: bool) -> None:
    """Before the queue has done anything."""
    clock = FakeClock()
    cluster = FakeCluster(clock)
    key = World(clock, cluster).add_run("a")
    run = cluster.store.get("TrainingRun", key)
    assert run is not None
    cluster.store.replace({**run, "metadata": {**run["metadata"], "labels": {label: "research"}}})
    gathered = gatherer(cluster, clock).gather(key)
    assert gathered is not None
    assert gathered.observed.run.has_queue == has_queue


def without_pods(cluster: FakeCluster, clock: Clock, name: str = "a") -> Key:
    """A run with an attempt on record whose job has no pods."""
    assert isinstance(clock, FakeClock)
    key = World(clock, cluster).add_run(name)
    run = cluster.get_run(key)
    assert run is not None
    attempt = {"number": 0, "job": f"{name}-a0", "replicas": 2, "startedAt": clock.now().isoformat()}
    run = cluster.replace_run_status({**run, "status": {"attempts": [attempt]}})
    cluster.create_job(render(run, 0, (), 2))
    return key


def warned(message: str) -> Object:
    """A Warning Event."""
    return {"message": message, "lastTimestamp": "2026-01-01T00:00:00Z"}


def warnings(gathers: Gatherer, key: Key) -> list[str]:
    """Of the jobs, as one pass sees them."""
    gathered = gathers.gather(key)
    assert gathered is not None
    return [job.warning for job in gathered.observed.jobs]


def gather(cluster: FakeCluster, clock: Clock, key: Key) -> tuple[object, ...]:
    """The pods of one pass."""
    gathered = gatherer(cluster, clock).gather(key)
    assert gathered is not None
    return gathered.observed.pods
