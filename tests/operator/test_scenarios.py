"""Whole runs in a modelled world: gather, decide, act, queue and poller together, one fault each."""

from __future__ import annotations

import pytest
from trainrun_api.rules.workers import AUTO_RESUME
from trainrun_operator.cluster import Key
from trainrun_operator.core.times import from_text
from trainrun_operator.errors import Refused, Unavailable
from trainrun_operator.testing.manifests import small_spec
from trainrun_operator.testing.simulation import Simulation

from tests.operator.modelled import at_step, causes, job_of, node_of, patiently, pod_of

SMALL = small_spec("small")


@pytest.fixture
def sim() -> Simulation:
    """Four nodes, one operator."""
    return Simulation()


def test_an_undisturbed_run_is_one_attempt(sim):
    """Started, trained, succeeded; each told once."""
    status = sim.finish(sim.world.add_run("a"))
    assert (status["result"], causes(status), status["restarts"]) == ("Succeeded", ["Done"], 0)
    assert [e[1] for e in sim.cluster.events] == ["AttemptStarted", "Running", "Succeeded"]
    assert status["progress"]["step"] == 100
    assert status["attempts"][0]["nodes"] == ["n0", "n1"]


FAULTS = {
    "node vanishes": (lambda w, k: patiently(w, k, 1), "NodeLost", 0),
    "node of worker 0 vanishes": (lambda w, k: patiently(w, k, 0), "NodeLost", 0),
    "node vanishes, and progress tells first": (lambda w, k: w.kill_node(node_of(w, k, 1)), "MemberSilent", 0),
    "node of worker 0, and progress tells first": (lambda w, k: w.kill_node(node_of(w, k, 0)), "MemberSilent", 0),
    "node object goes": (lambda w, k: w.remove_node(node_of(w, k, 1)), "NodeLost", 0),
    "node marked": (lambda w, k: w.mark_node(node_of(w, k, 1), "UnschedulablePendingReboot"), "NodeMarked", 0),
    "killed": (lambda w, k: w.fail_pod(w.pods(k)[1], 137, said=False), "Killed", 1),
    "segfault": (lambda w, k: w.fail_pod(w.pods(k)[1], 139, said=False), "SegmentationFault", 1),
    "out of memory": (lambda w, k: w.fail_pod(w.pods(k)[1], 137, reason="OOMKilled", said=False), "OOMKilled", 1),
    "numerical fault": (lambda w, k: w.fail_pod(w.pods(k)[0], 31), "NumericalFault", 1),
    "suspect device": (lambda w, k: w.fail_pod(w.pods(k)[0], 30), "DeviceSuspect", 0),
    "preempted": (lambda w, k: w.evict_pod(w.pods(k)[0]), "Preempted", 0),
    "drained": (lambda w, k: w.evict_pod(w.pods(k)[1], reason="EvictionByEvictionAPI"), "Drained", 0),
    "hang": (lambda w, k: w.hang(w.living_jobs(k)[0]["metadata"]["uid"]), "Stalled", 1),
    "job deleted": (lambda w, k: w.store.delete("PyTorchJob", job_of(w, k)), "JobDeleted", 0),
    "pod deleted": (lambda w, k: w.store.delete("Pod", pod_of(w, k, 1), grace_seconds=0), "PodDeleted", 0),
    "restart asked for": (lambda w, k: w.edit_run(k, restartToken="2"), "RestartRequested", 0),
    "more workers": (lambda w, k: w.edit_run(k, workers={"replicas": 3, "accelerator": "cpu"}), "WorkersChanged", 0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_survives(sim, fault):
    """One fault, one more attempt from a checkpoint, the right cause and price; then success, and nothing is left."""
    strike, cause, price = FAULTS[fault]
    key = sim.world.add_run("a")
    at_step(sim, key, 25)
    strike(sim.world, key)
    status = sim.finish(key)
    assert (status["result"], causes(status), status["restarts"]) == ("Succeeded", [cause, "Done"], price)
    assert sim.world.resumed[-1][2] >= 20
    ledger = status["goodput"]
    wall = from_text(status["endedAt"]) - from_text(
        sim.world.store.get("TrainingRun", key)["metadata"]["creationTimestamp"]
    )
    assert sum(ledger["secondsByClass"].values()) == pytest.approx(wall.total_seconds(), abs=1e-6)


def test_somebody_elses_annotation_on_a_job_is_left_alone(sim):
    """Jobs are created and deleted, never changed; and the next attempt does not carry it on."""
    key = sim.world.add_run("a")
    at_step(sim, key, 10)
    job = sim.world.store.get("PyTorchJob", job_of(sim.world, key))
    annotations = job["metadata"]["annotations"] | dict.fromkeys(AUTO_RESUME, "true")
    sim.world.store.replace({**job, "metadata": {**job["metadata"], "annotations": annotations}})
    at_step(sim, key, 25)
    assert sim.world.store.get("PyTorchJob", job_of(sim.world, key))["metadata"]["annotations"] == annotations
    sim.world.edit_run(key, restartToken="2")
    assert sim.until(
        lambda: len(sim.world.status(key)["attempts"]) == 2 and bool(sim.world.living_jobs(key)), limit_seconds=60
    )
    assert not set(AUTO_RESUME) & set(sim.world.living_jobs(key)[0]["metadata"]["annotations"])


def test_edits_that_can_wait_are_taken_at_the_next_attempt(sim):
    """A new image does not stop a run; the history says which generation ran."""
    key = sim.world.add_run("a")
    at_step(sim, key, 25)
    sim.world.edit_run(key, image="example/trainer:2")
    at_step(sim, key, 40)
    assert len(sim.world.status(key)["attempts"]) == 1
    sim.world.fail_pod(sim.world.pods(key)[1], 137, said=False)
    assert sim.until(
        lambda: len(sim.world.status(key)["attempts"]) == 2 and bool(sim.world.living_jobs(key)), limit_seconds=60
    )
    worker = sim.world.living_jobs(key)[0]["spec"]["pytorchReplicaSpecs"]["Worker"]
    assert worker["template"]["spec"]["containers"][0]["image"] == "example/trainer:2"
    assert [a["generation"] for a in sim.finish(key)["attempts"]] == [1, 2]


def test_a_stop_saves_the_very_last_step(sim):
    """Save stop: nothing is trained twice."""
    key = sim.world.add_run("a")
    at_step(sim, key, 25)
    sim.world.edit_run(key, suspend=True)
    assert sim.until(lambda: sim.world.status(key)["phase"] == "Suspended", limit_seconds=60)
    assert not sim.world.living_jobs(key)
    stopped_at = sim.world.status(key)["checkpoint"]["step"]
    assert stopped_at >= 25
    sim.run(300)
    sim.world.edit_run(key, suspend=False)
    status = sim.finish(key)
    assert sim.world.resumed[-1] == ("a", 1, stopped_at)
    assert status["goodput"]["secondsByClass"]["suspended"] >= 299


def test_a_queue_takes_and_gives_the_nodes_of_the_same_attempt(sim):
    """Kueue: one attempt, no budget, waiting booked as waiting."""
    key = sim.world.add_run("a")
    at_step(sim, key, 25)
    job = Key(key.namespace, "a-a0")
    sim.world.suspend_job(job, is_suspended=True)
    assert sim.until(lambda: sim.world.status(key)["phase"] == "Queued", limit_seconds=60)
    sim.run(3000)
    sim.world.suspend_job(job, is_suspended=False)
    status = sim.finish(key)
    assert (causes(status), status["restarts"]) == (["Done"], 0)
    assert status["goodput"]["secondsByClass"]["waitingCapacity"] >= 2900


def test_a_job_that_a_queue_admits_before_its_controller_looked_trains_as_ever(sim):
    """Pods that take a second each to make are older than startTime then; nobody took them."""
    key = sim.world.add_run("a")
    job = Key(key.namespace, "a-a0")
    sim.cluster.after = lambda call: call == "create_job" and sim.world.suspend_job(job, is_suspended=True)
    sim.step()
    assert sim.world.status(key)["phase"] == "Queued"
    sim.world.suspend_job(job, is_suspended=False)
    sim.cluster.store.subscribe(lambda e: sim.clock.advance(1 if (e.kind, e.type) == ("Pod", "ADDED") else 0))
    sim.step()
    started = sim.cluster.store.get("PyTorchJob", job)["status"]["startTime"]
    assert all(pod["metadata"]["creationTimestamp"] < started for pod in sim.world.pods(key))
    status = sim.finish(key)
    assert (causes(status), status["restarts"]) == (["Done"], 0)


def test_an_image_that_is_not_there_ends_the_run_by_name(sim):
    """Fast, with the image."""
    sim.world.unpullable = "manifest unknown"
    status = sim.finish(sim.world.add_run("a"), limit_seconds=60)
    assert (status["result"], status["failure"]["cause"]) == ("Failed", "ImageUnavailable")
    assert "example/trainer:1" in status["failure"]["evidence"][0]


def test_the_same_program_error_at_the_same_step_ends_the_run_at_the_second_sighting(sim):
    """Not at the tenth."""
    sim.world.program = lambda group: setattr(group, "program_error_at", 33)
    status = sim.finish(sim.world.add_run("a"))
    assert (status["result"], causes(status)) == ("Failed", ["ProgramError", "ProgramError"])
    assert "fix the program" in status["failure"]["action"]


def test_a_numerical_fault_is_replayed_on_other_nodes(sim):
    """Four nodes, two workers: none of the first two is used again."""
    key = sim.world.add_run("a")
    at_step(sim, key, 25)
    sim.world.fail_pod(sim.world.pods(key)[0], 31)
    first, second = sim.finish(key)["attempts"]
    assert not set(first["nodes"]) & set(second["nodes"])


def test_without_nodes_a_run_waits_for_free_and_starts_when_there_are_some():
    """Not one restart in an hour of waiting."""
    sim = Simulation(nodes=0)
    key = sim.world.add_run("a")
    sim.run(3600)
    status = sim.world.status(key)
    assert (status["phase"], status["restarts"], len(status["attempts"])) == ("Pending", 0, 1)
    assert "0 nodes are available" in status["conditions"][0]["message"]
    for index in range(2):
        sim.world.add_node(f"new{index}")
    assert sim.finish(key)["result"] == "Succeeded"


def test_without_a_spare_node_a_run_goes_on_with_fewer_and_takes_all_when_nodes_return():
    """Three workers on three nodes, one of which goes for half an hour: two train, and the third comes back in."""
    sim = Simulation(nodes=3)
    config = sim.world.store.get("TrainingRun", sim.world.add_run("x", suspend=True))["spec"]["config"]
    wanted = {"replicas": 3, "minReplicas": 2, "accelerator": "cpu"}
    key = sim.world.add_run("a", workers=wanted, config={**config, "total_steps": 3000})
    at_step(sim, key, 25)
    sim.world.remove_node("n1")
    sim.run(1800)
    status = sim.world.status(key)
    assert (status["conditions"][0]["reason"], status["replicas"]) == ("RunningOnFewerWorkers", 2)
    assert len(sim.world.status(key)["attempts"]) == 3
    sim.world.add_node("replacement")
    status = sim.finish(key)
    assert (status["result"], status["restarts"]) == ("Succeeded", 0)
    assert causes(status) == ["NodeLost", "GangIncomplete", "CapacityReturned", "Done"]
    assert [a["replicas"] for a in status["attempts"]] == [3, 3, 2, 3]
    assert status["goodput"]["secondsByClass"]["waitingCapacity"] < 40


def test_a_node_that_joins_for_others_is_tried_once():
    """It is never free for the run: asked for after ten minutes, then known not to be meant."""
    sim = Simulation(nodes=2)
    config = sim.world.store.get("TrainingRun", sim.world.add_run("x", suspend=True))["spec"]["config"]
    wanted = {"replicas": 3, "minReplicas": 2, "accelerator": "cpu"}
    key = sim.world.add_run("a", workers=wanted, config={**config, "total_steps": 3000})
    sim.run(300)
    sim.world.add_node("other")
    sim.world.taken = {"other"}
    status = sim.finish(key)
    assert (status["result"], status["restarts"]) == ("Succeeded", 0)
    assert causes(status) == ["GangIncomplete", "CapacityReturned", "GangIncomplete", "Done"]


def test_two_half_scheduled_gangs_do_not_block_each_other_for_ever():
    """Two runs of 3 workers on 4 nodes, whose pods get 2 nodes each: both succeed in the end."""
    sim = Simulation(nodes=4)
    sim.world.interleave = True
    wanted = {"replicas": 3, "accelerator": "cpu"}
    keys = [sim.world.add_run(name, workers=wanted) for name in ("a", "b")]
    statuses = [sim.finish(key, limit_seconds=20_000) for key in keys]
    assert [s["result"] for s in statuses] == ["Succeeded", "Succeeded"]
    assert "GangIncomplete" in causes(statuses[0]) + causes(statuses[1])
    assert [s["restarts"] for s in statuses] == [0, 0]


def test_a_refused_job_is_told_in_the_clusters_words_and_tried_again(sim):
    """Quota today, none a little later."""

    def refuse(call: str) -> None:
        if call == "create_job":
            raise Refused("exceeded quota: pods")

    sim.cluster.before = refuse
    key = sim.world.add_run("a")
    sim.run(130)
    status = sim.world.status(key)
    assert (status["phase"], len(status["attempts"])) == ("Stalled", 1)
    assert "exceeded quota: pods" in status["conditions"][0]["message"]
    sim.cluster.before = lambda call: None
    assert sim.finish(key)["result"] == "Succeeded"


def test_an_api_outage_is_no_reason_to_touch_a_run(sim):
    """Five minutes without an API server; the run trains on and the operator takes it up again."""
    key = sim.world.add_run(
        "a", config={**sim.world.store.get("TrainingRun", sim.world.add_run("x"))["spec"]["config"], "total_steps": 600}
    )
    at_step(sim, key, 25)

    def fail(call: str) -> None:
        raise Unavailable("no connection")

    sim.cluster.before = fail
    sim.run(300)
    sim.cluster.before = lambda call: None
    assert (causes(sim.finish(key))) == ["Done"]


def test_the_younger_of_two_runs_on_one_path_waits_for_the_older(sim):
    """Refused with the older one's name; started when it is over."""
    shared = {"path": "/checkpoints/shared", "interval": 10}
    old = sim.world.add_run("old", checkpoint=shared)
    sim.clock.advance(5)
    young = sim.world.add_run("young", checkpoint=shared)
    at_step(sim, old, 50)
    status = sim.world.status(young)
    assert (status["phase"], "attempts" not in status or not status["attempts"]) == ("Stalled", True)
    assert "default/old" in status["conditions"][0]["message"]
    sim.finish(old)
    assert sim.finish(young)["result"] == "Succeeded"


def test_a_run_created_again_under_its_name_waits_for_the_old_ones_pods_then_resumes(sim):
    """Same name, another uid: the old pods save first."""
    key = sim.world.add_run("a")
    at_step(sim, key, 25)
    sim.world.store.delete("TrainingRun", key)
    again = sim.world.add_run("a")
    sim.step()
    assert "PreviousRunTerminating" in sim.told()
    status = sim.finish(again)
    assert status["result"] == "Succeeded"
    assert sim.world.resumed[-1][2] >= 25


def test_a_deleted_run_leaves_nothing(sim):
    """The garbage collector takes its objects; the operator does nothing against it."""
    key = sim.world.add_run("a")
    at_step(sim, key, 25)
    sim.world.store.delete("TrainingRun", key)
    sim.run(150)
    assert sim.world.store.list("PyTorchJob") == []
    assert sim.world.store.list("Pod") == []


def test_a_finished_run_goes_after_its_time_to_live(sim):
    """ttlSecondsAfterFinished."""
    key = sim.world.add_run("a", ttlSecondsAfterFinished=30)
    sim.finish(key)
    assert sim.until(lambda: sim.world.store.get("TrainingRun", key) is None, limit_seconds=40)


def test_a_bad_spec_is_said_and_mended_by_an_edit(sim):
    """Stalled with the sentence; the edit starts it."""
    key = sim.world.add_run("a", workers={"replicas": 1, "accelerator": "cpu", "spares": 1})
    sim.step()
    status = sim.world.status(key)
    assert status["phase"] == "Stalled"
    assert "spec.workers.spares=1" in status["conditions"][0]["message"]
    sim.world.edit_run(key, workers={"replicas": 2, "accelerator": "cpu"})
    assert sim.finish(key)["result"] == "Succeeded"


WHOLE = {"name": "whole", "kind": "consolidate", "config": {"checkpoint": "stage:texts/checkpoints"}}


@pytest.mark.parametrize(
    ("stages", "stage"),
    [([], None), ([{"name": "texts", "kind": "train"}, WHOLE], "whole")],
    ids=["trains", "stages"],
)
def test_a_run_starts_from_the_result_of_another(sim, stages, stage):
    """It is told to wait while the other one is missing or trains, and begins with where its result lies."""
    tuned = {"config": SMALL["config"] | {"model": {}, "data": SMALL["config"]["data"] | {"tokenizer": {}}}}
    key = sim.world.add_run("tuned", resume={"from": "Run", "run": "base"}, **tuned)
    sim.run(5)
    assert sim.world.status(key)["conditions"][0]["reason"] == "ParentMissing"
    base = sim.world.add_run("base", stages=stages)
    sim.run(30)
    assert sim.world.status(key)["conditions"][0]["reason"] == "ParentAwaited"
    sim.finish(base)
    status = sim.finish(key)
    assert status["result"] == "Succeeded"
    assert (status["parent"]["run"], status["parent"]["path"]) == ("base", "/checkpoints/base")
    assert status["parent"].get("stage") == stage


def test_chained_attempts_carry_a_run_across_a_time_limit(sim):
    """maxAttemptSeconds: save, stop, next attempt, free."""
    config = sim.world.store.get("TrainingRun", sim.world.add_run("x"))["spec"]["config"]
    key = sim.world.add_run(
        "a", maxAttemptSeconds=60, terminationGracePeriodSeconds=10, config={**config, "total_steps": 200}
    )
    status = sim.finish(key)
    assert (causes(status), status["restarts"]) == (["TimeLimit"] * 3 + ["Done"], 0)


def test_everything_lost_but_the_objects_changes_nothing(sim):
    """A new operator every 20 s, with nothing but the API's objects."""
    key = sim.world.add_run("a")
    for _ in range(10):
        sim.run(20)
        sim.operators[0] = sim._start()
    assert causes(sim.finish(key)) == ["Done"]


def test_a_save_stop_costs_what_it_takes_and_no_more(sim):
    """Saved at the last step: nothing was lost and nothing had to be detected."""
    key = sim.world.add_run("a")
    at_step(sim, key, 15)
    sim.world.edit_run(key, restartToken="again")
    seconds = sim.finish(key)["goodput"]["secondsByClass"]
    assert causes(sim.world.status(key)) == ["RestartRequested", "Done"]
    assert not {"lost", "detecting"} & set(seconds)


def test_a_refused_deletion_is_told_once(sim):
    """Whoever took the right away finds it in the log, and the log is not filled with it."""

    def refuse(call: str) -> None:
        if call == "delete_job":
            raise Refused("delete pytorchjobs: forbidden")

    sim.cluster.before = refuse
    key = sim.world.add_run("a")
    at_step(sim, key, 15)
    sim.world.fail_pod(sim.world.pods(key)[1], 30)
    sim.finish(key)
    told = [line for line in sim.journal if line["type"] == "error"]
    assert [(line["reason"], line["message"]) for line in told] == [("StopJob", "delete pytorchjobs: forbidden")]


def test_the_younger_of_two_runs_on_one_path_starts_when_the_older_is_over(sim):
    """Soon, although nothing happens to it."""
    older = sim.world.add_run("a")
    sim.run(5)
    younger = sim.world.add_run("b", checkpoint={"path": "/checkpoints/a", "interval": 10})
    sim.finish(older)
    sim.run(20)
    assert sim.world.status(younger)["phase"] != "Stalled"
