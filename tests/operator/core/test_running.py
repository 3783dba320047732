"""Rules for an attempt that is under way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from trainrun_operator.core.decide import decide
from trainrun_operator.core.decision import CreateJob, StopJob
from trainrun_operator.core.observed import AgentFacts, ProgressFacts, Refusal
from trainrun_operator.core.times import to_text

from tests.operator.builders import (
    NOW,
    actions,
    ago,
    closed_attempt,
    fresh_attempt,
    lost_node,
    make_attempt,
    make_job,
    make_nodes,
    make_pod,
    make_progress,
    make_spec,
    make_status,
    pending_pod,
    running,
    silent,
)


def starting(**changes):
    """An attempt with a job whose pods are not all scheduled."""
    fields = {"scheduled_at": None, "first_step_at": None, "started_at": to_text(ago(400)), "nodes": []}
    return running(attempt=make_attempt(**(fields | changes.pop("attempt", {}))), progress=ProgressFacts(0), **changes)


def test_a_recorded_attempt_without_a_job_gets_one():
    """After a crash between the status write and the creation too."""
    attempt = fresh_attempt(excluded=["bad"])
    decision = decide(running(attempt=attempt, jobs=(), pods=(), progress=ProgressFacts(0)))
    assert decision.rule == "job_missing"
    assert actions(decision, CreateJob) == [CreateJob(0, 2, ("bad",))]


def test_an_existing_job_of_ours_is_adopted():
    """Its uid is put on record, nothing is created."""
    decision = decide(running(attempt=fresh_attempt(), pods=(), progress=ProgressFacts(0)))
    assert decision.status["attempts"][-1]["jobUID"] == "job-0"
    assert not actions(decision, CreateJob)


def test_a_job_of_that_name_with_another_owner_is_waited_for():
    """A leftover of the previous run under this name."""
    decision = decide(running(attempt=fresh_attempt(), jobs=(make_job(is_owned=False),), pods=()))
    assert (decision.rule, decision.reason) == ("job_missing", "PreviousRunTerminating")
    assert not actions(decision, CreateJob)


@pytest.mark.parametrize(
    ("refusal", "creates"),
    [
        (Refusal(0, "exceeded quota.", ago(59)), False),
        (Refusal(0, "exceeded quota", ago(59)), False),
        (Refusal(0, "exceeded quota.", ago(60)), True),
        (Refusal(3, "exceeded quota.", ago(1)), True),
    ],
    ids=["just now", "just now, no full stop", "a minute ago", "another attempt's"],
)
def test_a_refused_job_is_told_and_asked_for_again(refusal, creates):
    """The cluster's own words stand in the message; every minute the question is repeated."""
    decision = decide(running(attempt=fresh_attempt(), jobs=(), pods=(), refusal=refusal))
    assert bool(actions(decision, CreateJob)) == creates
    if refusal.attempt == 0:  # also while it is asked again
        assert (decision.reason, decision.next_wake) == ("CreationRefused", ago(-5) if creates else ago(-1))
        assert "exceeded quota. It is asked again" in decision.message


# -- capacity -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pods", "says"),
    [
        ((pending_pod(0), pending_pod(1)), "The scheduler says: 0/3 nodes are available."),
        ((pending_pod(0, because=""), pending_pod(1, because="")), "Nobody says why yet."),
    ],
    ids=["unschedulable", "scheduler silent"],
)
def test_waiting_for_capacity_is_free_and_says_why(pods, says):
    """No clock runs: no wake time, however long it takes."""
    decision = decide(starting(pods=pods))
    assert (decision.rule, decision.next_wake) == ("waiting_for_capacity", None)
    assert "2 of 2 pods have no node" in decision.message
    assert says in decision.message


@pytest.mark.parametrize(
    ("warning", "says"),
    [("", "Nobody says why yet."), ("exceeded quota: small", "Pods cannot be created: exceeded quota: small")],
)
def test_pods_that_do_not_appear_are_looked_for_again(warning, says):
    """Why is told by an Event on the job, which nobody watches."""
    decision = decide(starting(pods=(), jobs=(make_job(0, warning=warning),)))
    assert (decision.rule, decision.next_wake) == ("waiting_for_capacity", ago(-10))
    assert says in decision.message


def test_a_young_attempt_is_starting_not_waiting():
    """For 3 s nobody is told: the pods before it are just leaving."""
    decision = decide(starting(pods=(pending_pod(0), pending_pod(1)), attempt={"started_at": to_text(ago(2))}))
    assert (decision.rule, decision.reason, decision.next_wake) == ("attempt_runs", "Starting", ago(-1))


def test_an_attempt_without_a_time_of_its_start_is_not_young():
    """Another version wrote it."""
    decision = decide(starting(pods=(make_pod(0), pending_pod(1)), attempt={"started_at": None}))
    assert decision.next_wake is None


@pytest.mark.parametrize(
    ("held", "rule"), [(299, "waiting_for_capacity"), (300, "gang_incomplete")], ids=["young", "5 min"]
)
def test_half_a_gang_gives_its_nodes_back(held, rule):
    """After 5 minutes, counted from the last pod that got a node; free, and with a delay."""
    pods = (make_pod(0, scheduled_at=ago(held), phase="Pending"), pending_pod(1))
    decision = decide(starting(pods=pods))
    assert decision.rule == rule
    if rule == "waiting_for_capacity":
        assert decision.next_wake == ago(-1)
        return
    assert decision.actions[0] == StopJob("a-a0", "job-0", "abort", 1)
    assert decision.status["restarts"] == 0
    assert 15 <= (decision.next_wake - NOW).total_seconds() < 45


def test_half_gangs_in_a_row_wait_longer():
    """The delay doubles; other ends in between start the count anew."""
    pods = (make_pod(0, number=2, scheduled_at=ago(300), phase="Pending"), pending_pod(1, number=2))
    attempt = make_attempt(2, scheduled_at=None, first_step_at=None, started_at=to_text(ago(400)))
    delays = []
    for causes in (["GangIncomplete", "GangIncomplete"], ["GangIncomplete", "Stopped"]):
        history = make_status(*(closed_attempt(n, c) for n, c in enumerate(causes)), attempt)
        decision = decide(running(status=history, attempt=attempt, pods=pods, progress=ProgressFacts(2)))
        delays.append((decision.next_wake - NOW).total_seconds())
    assert delays[0] == pytest.approx(4 * delays[1], abs=0.01)


def test_a_pod_beyond_the_gang_is_not_waited_for():
    """A leftover of more workers."""
    pods = (make_pod(0, phase="Pending"), make_pod(1, phase="Pending"), pending_pod(2))
    assert decide(starting(pods=pods)).rule == "attempt_runs"


def test_a_gang_that_was_complete_once_is_not_waiting():
    """A pod that vanished later is for other rules."""
    assert decide(running(pods=(make_pod(0),))).rule == "attempt_runs"


# -- suspicion and blindness ------------------------------------------------------------------------------


def test_a_not_ready_node_of_a_moving_run_is_only_suspected():
    """Watched closely, nothing is done, the wake time is when time alone may decide."""
    decision = decide(running(nodes=make_nodes(lost_node("n1"))))
    assert (decision.rule, decision.reason) == ("node_suspected", "NodeSuspect")
    assert "the run made steps since then" in decision.message
    assert (decision.watch.is_suspect, decision.watch.ask_all) == (True, True)
    assert decision.next_wake == ago(10 - 30)
    assert not actions(decision, StopJob)


@pytest.mark.parametrize("attempt", [make_attempt(), fresh_attempt()], ids=["trains", "starts"])
def test_a_suspicion_is_told_when_it_lasts(attempt):
    """Mostly the verdict is there before; agents are asked from the first moment."""
    young = running(status=make_status(attempt), nodes=make_nodes(lost_node("n1", seconds=2)))
    decision = decide(young)
    assert (decision.rule, decision.next_wake) == ("node_suspected", ago(-1))
    assert decision.reason == decide(running(status=make_status(attempt))).reason
    assert decision.watch.ask_all
    assert decide(replace(young, now=ago(-1))).reason == "NodeSuspect"


@pytest.mark.parametrize(("seconds", "rule"), [(59, "attempt_runs"), (60, "attempt_blind")], ids=["short", "long"])
def test_silence_of_all_agents_is_said_but_not_acted_upon(seconds, rule):
    """Blind: pods live, nothing is done, however old the last step is."""
    agents = {0: silent(seconds + 10), 1: silent(seconds)}
    decision = decide(running(progress=make_progress(seconds_ago=600, agents=agents)))
    assert decision.rule == rule
    assert decision.watch.is_suspect
    assert not actions(decision, StopJob)
    if rule == "attempt_blind":
        assert (decision.reason, "timeout" in decision.message) == ("Blind", True)
    else:
        assert decision.next_wake == ago(-1)


def test_one_voice_is_enough_not_to_be_blind():
    """A peer that answers speaks for the run."""
    agents = {0: silent(600), 1: AgentFacts(ago(1))}
    assert decide(running(progress=make_progress(agents=agents))).rule == "attempt_runs"


def test_agents_that_are_not_up_yet_are_not_blindness():
    """Before the first step the startup limit governs."""
    attempt = make_attempt(first_step_at=None)
    decision = decide(running(attempt=attempt, progress=ProgressFacts(0, agents={0: silent(100), 1: silent(100)})))
    assert (decision.rule, decision.reason) == ("attempt_runs", "Starting")


# -- running ------------------------------------------------------------------------------------------------


def test_a_healthy_attempt_needs_nothing_but_its_watch():
    """The poller gets its thresholds; the only timer is the age of the checkpoint."""
    decision = decide(running())
    assert (decision.rule, decision.reason, decision.actions[:-1]) == ("attempt_runs", "Running", ())
    watch = decision.watch
    assert (watch.attempt, watch.is_suspect, watch.first_step_missing, watch.ask_all) == (0, False, False, False)
    assert (watch.step_age_limit_seconds, watch.phase, watch.heard_indices) == (20.0, "training", frozenset({0, 1}))


def test_a_step_that_takes_long_is_watched_more_closely():
    """Half of the limit is reason enough to ask often."""
    assert decide(running(progress=make_progress(step_age_seconds=10.5))).watch.is_suspect


def test_nobody_is_asked_before_a_pod_runs():
    """Nothing to poll."""
    assert decide(starting(pods=(pending_pod(0), pending_pod(1)))).watch is None


def test_the_first_step_is_put_on_record():
    """With the step's own time, not the time of the answer."""
    attempt = make_attempt(first_step_at=None, start_step=None)
    entry = decide(running(attempt=attempt)).status["attempts"][-1]
    assert (entry["firstStepAt"], entry["startStep"]) == (to_text(ago(1.5)), 50)


def test_in_place_restarts_are_put_on_record():
    """They are the agent's doing; the run should know."""
    entry = decide(running(progress=make_progress(inplace_restarts=2))).status["attempts"][-1]
    assert entry["inplaceRestarts"] == 2


def test_an_overrun_time_limit_wakes_the_operator():
    """Limit plus grace plus a minute after all pods had nodes."""
    decision = decide(running(spec=make_spec(maxAttemptSeconds=1000), progress=make_progress(durable_checkpoint=None)))
    assert decision.next_wake == ago(900 - 1000 - 120 - 60)


@pytest.mark.parametrize("observed", [running(), running(progress=ProgressFacts(0))], ids=["heard", "deaf"])
def test_an_unchanged_situation_writes_nothing_twice(observed):
    """Applying the status and deciding again gives the same status and no action."""
    from tests.operator.builders import applied

    first = decide(observed)
    again = applied(observed, first)
    second = decide(again)
    assert second.status == first.status
    assert second.actions == ()


def test_foreign_pods_and_jobs_do_not_matter_to_a_running_attempt():
    """A pod of another attempt or owner is not a member."""
    extra = (make_pod(0, number=7, phase="Failed"), make_pod(1, is_owned=False, phase="Failed"))
    observed = running()
    assert decide(replace(observed, pods=observed.pods + extra)).rule == "attempt_runs"
