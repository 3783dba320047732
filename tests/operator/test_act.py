"""Each action has its precondition and may be repeated."""

from __future__ import annotations

import pytest
from trainrun_operator import act
from trainrun_operator.act import describe, perform, write_status
from trainrun_operator.cluster import Key
from trainrun_operator.core.decision import (
    CreateJob,
    Decision,
    DeleteRun,
    ForceDeletePod,
    RecordEvent,
    ReplacePod,
    StopJob,
)
from trainrun_operator.errors import Conflict
from trainrun_operator.testing import FakeClock, FakeCluster
from trainrun_operator.testing.world import World


class Stage:
    """A run with a job of two pods that run."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cluster = FakeCluster(self.clock)
        self.world = World(self.clock, self.cluster)
        for index in range(2):
            self.world.add_node(f"n{index}")
        self.key = self.world.add_run("a")
        self.run = self.cluster.get_run(self.key)
        perform(self.cluster, self.run, CreateJob(0, 2, ()))
        self.world.tick()
        self.job = self.cluster.get_job(Key("default", "a-a0"))
        self.cluster.writes.clear()

    def stop(self, mode: str, grace: int) -> StopJob:
        """A stop of the job."""
        return StopJob("a-a0", self.job["metadata"]["uid"], mode, grace)

    def graces(self) -> list[int | None]:
        """What is left to each pod."""
        return [p["metadata"].get("deletionGracePeriodSeconds") for p in self.world.pods(self.key)]


@pytest.fixture
def stage() -> Stage:
    """The stage."""
    return Stage()


def decision(status) -> Decision:
    """A decision that only writes."""
    return Decision("r", "R", "m", status, (), None, None)


def test_status_is_written_under_its_version_and_only_if_it_changed(stage):
    """A stale writer gets a conflict."""
    written = write_status(stage.cluster, stage.run, decision({"phase": "X"}))
    assert stage.cluster.writes == ["replace_run_status"]
    assert write_status(stage.cluster, written, decision({"phase": "X"})) is written
    with pytest.raises(Conflict):
        write_status(stage.cluster, stage.run, decision({"phase": "Y"}))


def test_a_job_that_exists_is_left_for_the_next_pass_to_adopt(stage):
    """Created once."""
    assert not perform(stage.cluster, stage.run, CreateJob(0, 2, ()))
    assert len(stage.world.living_jobs(stage.key)) == 1


@pytest.mark.parametrize(("few", "pods"), [(2, "delete_pod"), (1, "delete_pods")], ids=["one by one", "in one call"])
@pytest.mark.parametrize(("mode", "grace"), [("save", 90), ("abort", 1)])
def test_a_stop_deletes_the_job_and_its_pods_with_the_wanted_grace(stage, monkeypatch, mode, grace, few, pods):
    """Abort: the pods first, since a kubelet that was told of a longer grace is not hurried by a shorter one. A second
    time nothing is left to do. The fake cluster writes down each pod of a call for all."""
    monkeypatch.setattr(act, "FEW_PODS", few)
    writes = ["delete_job", pods, pods] if mode == "save" else [pods, pods, "delete_job"]
    assert perform(stage.cluster, stage.run, stage.stop(mode, grace))
    assert stage.cluster.writes == writes
    assert stage.graces() == [grace, grace]
    assert not perform(stage.cluster, stage.run, stage.stop(mode, grace))


def test_an_abort_shortens_the_grace_of_a_save_but_not_the_reverse(stage):
    """Devices are wanted now."""
    perform(stage.cluster, stage.run, stage.stop("save", 90))
    perform(stage.cluster, stage.run, stage.stop("abort", 1))
    assert stage.graces() == [1, 1]
    perform(stage.cluster, stage.run, stage.stop("save", 90))
    assert stage.graces() == [1, 1]


def test_a_stop_of_a_job_with_another_uid_touches_nothing(stage):
    """Its successor of the same name lives."""
    assert not perform(stage.cluster, stage.run, StopJob("a-a0", "old-uid", "abort", 1))
    assert stage.graces() == [None, None]
    assert len(stage.world.living_jobs(stage.key)) == 1


def test_a_pod_is_removed_by_force_only_under_its_uid(stage):
    """At once, and once."""
    pod = stage.world.pods(stage.key)[0]["metadata"]
    assert not perform(stage.cluster, stage.run, ForceDeletePod(pod["name"], "another"))
    assert perform(stage.cluster, stage.run, ForceDeletePod(pod["name"], pod["uid"]))
    assert not perform(stage.cluster, stage.run, ForceDeletePod(pod["name"], pod["uid"]))
    assert len(stage.world.pods(stage.key)) == 1


def test_a_run_is_deleted_only_under_its_uid(stage):
    """A run re-created meanwhile stays."""
    assert not perform(stage.cluster, stage.run, DeleteRun("another"))
    assert perform(stage.cluster, stage.run, DeleteRun(stage.run["metadata"]["uid"]))
    assert stage.cluster.get_run(stage.key) is None


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (CreateJob(2, 4, ()), "create the job of attempt 2 with 4 workers"),
        (CreateJob(2, 4, ("n1", "n2")), "create the job of attempt 2 with 4 workers avoiding n1, n2"),
        (StopJob("j", "u", "save", 90), "stop job j (save, grace 90 s)"),
        (ForceDeletePod("p", "u"), "remove pod p by force"),
        (ReplacePod("p", "u"), "take pod p from its job and remove it by force"),
        (CreateJob(2, 4, (), 1), "create the job of attempt 2 with 4 workers and 1 spares"),
        (DeleteRun("u"), "delete the run"),
        (RecordEvent("Normal", "Running", "m"), "event Running"),
    ],
    ids=lambda v: type(v).__name__ if not isinstance(v, str) else "",
)
def test_each_action_has_words(action, words):
    """For the journal."""
    assert describe(action) == words
