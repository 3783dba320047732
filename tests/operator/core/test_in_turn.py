"""An attempt's end and the next one's start in one pass: two decisions, one status, the old job left to the next."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from trainrun_api.v1alpha1 import StopStatus
from trainrun_operator.core.decide import decide, decide_in_turn
from trainrun_operator.core.decision import CreateJob, RecordEvent, StopJob
from trainrun_operator.core.observed import AgentFacts, NodeFacts
from trainrun_operator.core.times import to_text

from tests.operator.builders import (
    NOW,
    actions,
    ago,
    applied,
    ended_pod,
    idle,
    make_attempt,
    make_job,
    make_nodes,
    make_pod,
    make_progress,
    make_spec,
    make_status,
    running,
    silent,
    words,
)
from tests.operator.core.test_properties import snapshots

ABORT = StopJob("a-a0", "job-0", "abort", 1)
GONE = make_nodes(NodeFacts("n1", exists=False, ready=None))


def test_a_lost_nodes_next_job_comes_first_and_the_old_one_goes_in_the_next_pass():
    """Both are told, and written once."""
    observed = running(nodes=GONE)
    lost, start = decide_in_turn(observed)
    assert (lost.reason, start.reason) == ("Restarting", "AttemptStarted")
    assert [a.get("cause") for a in start.status["attempts"]] == ["NodeLost", None]
    assert [type(a) for a in (*lost.actions, *start.actions)] == [RecordEvent, CreateJob, RecordEvent]
    assert start.next_wake == NOW
    assert decide(applied(observed, start)).actions[0] == ABORT


def test_what_no_later_pass_would_stop_is_stopped_at_once():
    """Somebody deletes the job and it is still there: it is not tidied up again, but its pods are to go quickly."""
    lost, start = decide_in_turn(running(nodes=GONE, jobs=(make_job(0, is_deleting=True),)))
    assert lost.actions[0] == ABORT
    assert actions(start, CreateJob) and not actions(start, StopJob)


def test_a_well_node_that_is_blamed_is_looked_at_before_the_next_start():
    """The snapshot has nothing to say of it, and the new attempt is to avoid it."""
    progress = make_progress(step_age_seconds=30.0, agents={0: AgentFacts(NOW), 1: silent()})
    observed = running(progress=progress)
    (ended,) = decide_in_turn(observed)
    assert ended.status["nodes"]["excluded"] == ["n1"]
    assert ended.next_wake == NOW
    following = applied(observed, ended, nodes=make_nodes(NodeFacts("n1", ready=True)))
    assert actions(decide(following), CreateJob)[0].excluded_nodes == ("n1",)


STOPPED = make_status(make_attempt(stop=StopStatus(reason="Suspended", requested_at=to_text(ago(20)))))


@pytest.mark.parametrize(
    ("observed", "reason"),
    [
        (running(), "Running"),
        (idle(), "AttemptStarted"),
        (running(pods=(make_pod(0), ended_pod(1, 1, words(1)))), "Restarting"),
        (running(status=STOPPED, spec=make_spec(suspend=True), jobs=(), pods=()), "AttemptStopped"),
    ],
    ids=["nothing ends", "none was open", "the next one is delayed", "no next one is wanted"],
)
def test_otherwise_it_is_one_decision(observed, reason):
    """The same as ever."""
    assert decide_in_turn(observed) == (decide(observed),)
    assert decide(observed).reason == reason


@settings(max_examples=200, deadline=None)
@given(snapshots())
def test_it_ends_where_single_passes_would_end(observed):
    """The same status, the same news in the same order; with the next pass the same actions."""
    turn = decide_in_turn(observed)
    passes, seen = [], observed
    for _ in range(len(turn) + 1):
        passes.append(decide(seen))
        seen = applied(seen, passes[-1])
    assert turn[-1].status == passes[len(turn) - 1].status
    told = [a for d in turn for a in d.actions if isinstance(a, RecordEvent)]
    assert told == [a for d in passes[:-1] for a in d.actions if isinstance(a, RecordEvent)]
    following = decide(applied(observed, turn[-1]))
    assert {a for d in (*turn, following) for a in d.actions} == {a for d in passes for a in d.actions}
    assert len(turn) == 1 or turn[-1].next_wake == observed.now
