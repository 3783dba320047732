"""The running operator: events become keys, errors become retries, threads do what the simulator does by hand."""

from __future__ import annotations

import threading

import pytest
from trainrun_api.contract import Label
from trainrun_operator.clock import SystemClock
from trainrun_operator.cluster import Key, WatchEvent
from trainrun_operator.errors import ClusterError, Conflict, NotFound, Unavailable
from trainrun_operator.operator import Operator
from trainrun_operator.settings import Settings, local
from trainrun_operator.testing import FakeClock, FakeCluster
from trainrun_operator.testing.simulation import Simulation
from trainrun_operator.testing.world import World
from trainrun_trainer.agent import peers


def test_threads_carry_a_run_to_its_first_job_and_stop_when_told():
    """With the machine's clock: the run's creation alone makes an attempt and its job."""
    cluster, clock = FakeCluster(SystemClock()), SystemClock()
    created = threading.Event()
    cluster.after = lambda call: created.set() if call == "create_job" else None
    operator = Operator(cluster, clock, local(), lambda line: None)
    operator.start()
    World(FakeClock(), cluster).add_run("a")
    assert created.wait(20)
    operator.stop()
    assert [j["metadata"]["name"] for j in cluster.store.list("PyTorchJob")] == ["a-a0"]


def test_pods_of_a_users_image_take_the_agent_from_the_image_that_was_named():
    """A private registry: the built-in name leads nowhere there."""
    cluster, clock = FakeCluster(FakeClock()), FakeClock()
    operator = Operator(cluster, clock, Settings(agent_image="registry.example/trainer:1"), lambda line: None)
    key = World(clock, cluster).add_run("a", command=["train.py"], config=None)
    operator.queue.add(key)
    while operator.process_due():
        pass
    (job,) = cluster.store.list("PyTorchJob")
    pod = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    assert [c["image"] for c in pod["initContainers"]] == ["registry.example/trainer:1"]


def test_a_bug_that_one_run_brings_out_does_not_end_the_others():
    """Told with its place, repeated with back-off; the thread lives on."""
    cluster, clock, told = FakeCluster(SystemClock()), SystemClock(), []
    created = threading.Event()
    cluster.after = lambda call: created.set() if call == "create_job" else None
    world = World(FakeClock(), cluster)
    bad = world.add_run("bad")
    run = cluster.store.get("TrainingRun", bad)
    cluster.store.replace_status({**run, "status": {"attempts": "not a list"}})
    operator = Operator(cluster, clock, local(), told.append)
    operator.start()
    world.add_run("good")
    assert created.wait(20)
    operator.stop()
    errors = [line for line in told if line["type"] == "error"]
    assert {line["run"] for line in errors} == {"bad"}
    assert "attempts" in errors[0]["message"]


def test_a_run_that_was_there_before_the_operator_is_found():
    """The first resync is at the start."""
    sim = Simulation()
    sim.cluster.deliveries = lambda event: 0
    sim.world.add_run("a")
    sim.operators[0] = sim._start()
    sim.step()
    assert "AttemptStarted" in sim.told()


def test_a_lost_watch_costs_no_more_than_a_resync():
    """Nothing at all is delivered; the run still gets through."""
    sim = Simulation()
    sim.cluster.deliveries = lambda event: 0
    assert sim.finish(sim.world.add_run("a"), limit_seconds=2000)["result"] == "Succeeded"


@pytest.mark.parametrize(
    "error", [Conflict("x"), NotFound("x"), Unavailable("x"), ClusterError("x")], ids=lambda e: type(e).__name__
)
def test_a_failing_pass_is_repeated_with_back_off(error):
    """And the run goes on when the error is over."""
    sim = Simulation()
    calls = []

    def fail(call: str) -> None:
        if call == "replace_run_status" and len(calls) < 3:
            calls.append(sim.clock.monotonic())
            raise error

    sim.cluster.before = fail
    key = sim.world.add_run("a")
    assert sim.finish(key)["result"] == "Succeeded"
    assert len(calls) == 3


def test_heartbeats_of_nodes_are_no_news():
    """A change of what the rules look at is, and only for the runs on that node."""
    sim = Simulation()
    key = sim.world.add_run("a")
    assert sim.until(lambda: bool(sim.world.status(key).get("attempts", [{}])[0].get("nodes")), limit_seconds=60)
    operator = sim.operators[0]
    while operator.process_due():
        pass
    node = sim.world.store.get("Node", Key("", "n0"))
    operator.on_event(WatchEvent("MODIFIED", "Node", node))
    while operator.process_due():
        pass
    operator.on_event(WatchEvent("MODIFIED", "Node", node))
    assert operator.queue.pop_due() is None
    free = sim.world.store.get("Node", Key("", "n3"))
    operator.on_event(WatchEvent("DELETED", "Node", free))
    assert operator.queue.pop_due() is None
    operator.on_event(WatchEvent("DELETED", "Node", node))
    assert operator.queue.pop_due() == key


COMES = {"metadata": {"name": "p", "namespace": "ns", "labels": {Label.RUN: "a"}}, "status": {"phase": "Running"}}


@pytest.mark.parametrize(
    ("event", "seconds"),
    [
        pytest.param(WatchEvent("ADDED", "Pod", {**COMES, "status": {}}), 1.0, id="comes"),
        pytest.param(WatchEvent("MODIFIED", "Pod", COMES), 1.0, id="runs"),
        pytest.param(WatchEvent("MODIFIED", "Pod", {**COMES, "status": {"phase": "Failed"}}), 0, id="failed"),
        pytest.param(
            WatchEvent("MODIFIED", "Pod", {**COMES, "status": {"containerStatuses": [{"state": {"terminated": {}}}]}}),
            0, id="a-container-ended",
        ),
        pytest.param(
            WatchEvent("MODIFIED", "Pod", {**COMES, "metadata": {**COMES["metadata"], "deletionTimestamp": "now"}}),
            0, id="leaves",
        ),
        pytest.param(WatchEvent("DELETED", "Pod", COMES), 0, id="is-gone"),
        pytest.param(WatchEvent("MODIFIED", "PyTorchJob", COMES), 0, id="job"),
    ],
)  # fmt: skip
def test_pods_that_come_are_looked_at_together(event, seconds):
    """Hundreds of them within seconds; what has ended or is about to is looked at once."""
    clock = FakeClock()
    operator = Operator(FakeCluster(clock), clock, Settings(), lambda line: None)
    for _ in range(3):
        operator.on_event(event)
    assert operator.queue.next_due_at() == clock.monotonic() + seconds
    clock.advance(seconds)
    assert [operator.queue.pop_due(), operator.queue.pop_due()] == [Key("ns", "a"), None]


OURS = {"metadata": {"name": "a", "namespace": "ns", "generation": 2}, "status": {"observedGeneration": 2}}
LEAVES = {**OURS, "metadata": {**OURS["metadata"], "deletionTimestamp": "now"}}
EDITED = {**OURS, "metadata": {**OURS["metadata"], "generation": 3}}


@pytest.mark.parametrize(
    ("event", "gives_way"),
    [
        pytest.param(WatchEvent("MODIFIED", "TrainingRun", OURS), True, id="own status"),
        pytest.param(WatchEvent("ADDED", "PyTorchJob", COMES), True, id="own job"),
        pytest.param(WatchEvent("ADDED", "Pod", {**COMES, "status": {}}), True, id="pod comes"),
        pytest.param(WatchEvent("MODIFIED", "TrainingRun", EDITED), False, id="edited run"),
        pytest.param(WatchEvent("MODIFIED", "TrainingRun", LEAVES), False, id="deleted run"),
        pytest.param(WatchEvent("ADDED", "TrainingRun", OURS), False, id="new run"),
        pytest.param(WatchEvent("MODIFIED", "PyTorchJob", COMES), False, id="changed job"),
        pytest.param(WatchEvent("DELETED", "PyTorchJob", COMES), False, id="deleted job"),
        pytest.param(WatchEvent("DELETED", "Pod", COMES), False, id="pod goes"),
    ],
)
def test_what_comes_along_gives_way_to_what_a_fault_calls_for(event, gives_way):
    """Another run's pod has failed a little later."""
    clock = FakeClock()
    operator = Operator(FakeCluster(clock), clock, Settings(), lambda line: None)
    operator.on_event(event)
    clock.advance(2)
    other = {"name": "q", "namespace": "ns", "labels": {Label.RUN: "b"}}
    operator.on_event(WatchEvent("MODIFIED", "Pod", {"metadata": other, "status": {"phase": "Failed"}}))
    order = [Key("ns", "b"), Key("ns", "a")] if gives_way else [Key("ns", "a"), Key("ns", "b")]
    assert [operator.queue.pop_due(), operator.queue.pop_due()] == order


def test_a_pass_that_time_calls_for_gives_way():
    """Another run is deleted two seconds after it was due."""
    sim = Simulation()
    key = sim.world.add_run("a")
    operator = sim.operators[0]
    while operator.process_due():
        pass
    due = operator.queue.next_due_at()
    assert due is not None
    sim.clock.advance(due - sim.clock.monotonic() + 2)
    operator.on_event(WatchEvent("DELETED", "TrainingRun", OURS))
    assert [operator.queue.pop_due(), operator.queue.pop_due()] == [Key("ns", "a"), key]


def test_objects_without_our_label_wake_nobody():
    """Other people's pods."""
    sim = Simulation()
    sim.operators[0].on_event(WatchEvent("ADDED", "Pod", {"metadata": {"name": "x", "namespace": "y"}}))
    sim.operators[0].resync_if_due()
    assert sim.operators[0].queue.pop_due() is None


def test_an_unreachable_api_delays_resync_and_node_news():
    """Neither raises; both come back."""
    sim = Simulation()

    def fail(call: str) -> None:
        raise Unavailable("x")

    key = sim.world.add_run("a")
    sim.cluster.before = fail
    sim.operators[0].resync_if_due()
    sim.world.kill_node("n0")
    sim.operators[0].on_event(WatchEvent("DELETED", "Node", sim.world.store.get("Node", Key("", "n0"))))
    sim.cluster.before = lambda call: None
    assert sim.finish(key)["result"] == "Succeeded"


def test_the_journal_has_one_line_per_decision_and_action_with_its_place():
    """What `trainrun explain` and events.jsonl are made of."""
    sim = Simulation()
    sim.finish(sim.world.add_run("a"))
    assert {"time", "namespace", "run", "attempt", "type", "rule", "reason", "message"} <= set(sim.journal[0])
    assert sim.told() == ["AttemptStarted", "Starting", "Running", "Succeeded"]
    assert [line["message"] for line in sim.journal if line["reason"] == "CreateJob"] == [
        "create the job of attempt 0 with 2 workers"
    ]


def test_a_healthy_run_is_left_in_peace():
    """Ten minutes of training: polled, but written at most about once a minute."""
    sim = Simulation()
    config = sim.world.store.get("TrainingRun", sim.world.add_run("x"))["spec"]["config"]
    sim.cluster.store.delete("TrainingRun", Key("default", "x"))
    sim.world.add_run("a", config={**config, "total_steps": 10_000})
    sim.run(100)
    before = len(sim.cluster.writes)
    sim.run(600)
    assert len(sim.cluster.writes) - before <= 12


def test_settings_for_one_machine_only_ask_more_often():
    """The same machinery."""
    assert local().poll_suspect_seconds < Settings().poll_suspect_seconds
    assert local().poll_timeout_seconds == Settings().poll_timeout_seconds


@pytest.mark.parametrize("settings", [Settings(), local()], ids=["cluster", "one machine"])
def test_a_peer_that_answers_each_question_of_worker_0_is_not_silent(settings):
    """Just before the next answer the last one is as old as their interval and the time to answer."""
    assert settings.peer_silent_seconds > peers.ASK_EVERY_SECONDS + peers.ANSWER_SECONDS
