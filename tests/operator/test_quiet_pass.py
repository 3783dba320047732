"""A run that trains is reported on without live reads; whatever starts or ends something is looked at again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from trainrun_operator.cluster import Key, Object
from trainrun_operator.core.situation import PROGRESS_WRITE_SECONDS
from trainrun_operator.testing.simulation import Simulation


def training(sim: Simulation) -> Key:
    """A run that trains for hours."""
    config = sim.world.store.get("TrainingRun", sim.world.add_run("x"))["spec"]["config"]
    sim.cluster.store.delete("TrainingRun", Key("default", "x"))
    key = sim.world.add_run("a", config={**config, "total_steps": 10_000})
    sim.run(100)
    assert sim.world.status(key)["phase"] == "Running"
    return key


def test_progress_is_written_without_live_reads() -> None:
    """Ten minutes: about ten writes and nothing else."""
    sim = Simulation()
    key = training(sim)
    calls: Counter[str] = Counter()
    sim.cluster.before = lambda call: calls.update([call])
    before = sim.world.status(key)["progress"]["step"]
    sim.run(10 * PROGRESS_WRITE_SECONDS)
    assert sim.world.status(key)["progress"]["step"] > before
    assert (calls["get_run"], calls["get_job"]) == (0, 0)
    assert calls["replace_run_status"] >= 8


def test_a_watch_that_is_behind_costs_a_conflict_and_a_live_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The write carries the version that was seen, so nothing of the newer status is lost."""
    sim = Simulation()
    key = training(sim)
    stale = sim.world.store.get("TrainingRun", key)
    sim.run(2 * PROGRESS_WRITE_SECONDS)
    monkeypatch.setattr(sim.cluster, "known_run", lambda key: stale)
    calls: Counter[str] = Counter()
    sim.cluster.before = lambda call: calls.update([call])
    step = sim.world.status(key)["progress"]["step"]
    sim.run(2 * PROGRESS_WRITE_SECONDS)
    assert sim.world.status(key)["progress"]["step"] > step
    assert calls["get_run"] > 0


@pytest.mark.parametrize("known", [None, "deleted"])
def test_a_run_that_no_watch_has_shown_is_read_live(monkeypatch: pytest.MonkeyPatch, known: str | None) -> None:
    """Also one whose spec was never parsed: the operator has just started."""
    sim = Simulation()
    key = training(sim)
    shown: Object | None = None
    if known == "deleted":
        shown = sim.world.store.get("TrainingRun", key)
        sim.cluster.store.delete("TrainingRun", key)
    monkeypatch.setattr(sim.cluster, "known_run", lambda key: shown)
    calls: Counter[str] = Counter()
    sim.cluster.before = lambda call: calls.update([call])
    sim.operators[0].queue.add(key)
    while sim.operators[0].process_due():
        pass
    assert calls["get_run"] > 0


def test_an_attempt_is_never_ended_on_what_the_watch_shows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of jobs that lacks ours is a watch that has not shown it yet."""
    sim = Simulation()
    key = training(sim)

    def none(run: Key) -> list[dict[str, Any]]:
        return []

    monkeypatch.setattr(sim.cluster, "list_jobs", none)
    sim.run(2 * PROGRESS_WRITE_SECONDS)
    assert sim.world.status(key)["phase"] == "Running"
    assert len(sim.world.status(key)["attempts"]) == 1


def test_a_job_that_is_over_without_its_pods_words_is_looked_at_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """The live look lists the pods anew."""
    sim = Simulation()
    key = training(sim)
    (job,) = sim.cluster.list_jobs(key)
    over = {**job, "status": {"conditions": [{"type": "Failed", "status": "True"}]}}
    monkeypatch.setattr(sim.cluster, "list_jobs", lambda run: [over])
    calls: Counter[str] = Counter()
    sim.cluster.before = lambda call: calls.update([call])
    sim.operators[0].queue.add(key)
    sim.operators[0].process_due()
    assert calls["get_job"] > 0


def test_after_a_start_nothing_is_read_live_until_it_trains() -> None:
    """What is left of the attempt before is deleted by uid, and how the new one comes along is told as it is seen."""
    sim = Simulation()
    key = training(sim)
    (old,) = sim.cluster.list_jobs(key)
    sim.world.remove_node(sim.world.status(key)["attempts"][-1]["nodes"][0])
    calls: list[str] = []
    sim.cluster.before = calls.append
    while "create_job" not in calls:
        sim.run(1)
    while sim.world.status(key)["phase"] != "Running":
        sim.run(1)
    after = calls[calls.index("create_job") :]
    assert after.count("delete_job") == 1
    assert after.count("get_run") == after.count("get_job") == 0
    assert [job["metadata"]["name"] for job in sim.cluster.list_jobs(key)] == ["a-a1"] != [old["metadata"]["name"]]
