"""Rules about the run as a whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
from trainrun_api.v1alpha1 import FailureStatus
from trainrun_operator.core.decide import decide
from trainrun_operator.core.decision import CreateJob, DeleteRun, StopJob
from trainrun_operator.core.times import to_text

from tests.operator.builders import actions, ago, closed_attempt, idle, make_spec, make_status, running


def finished(result: str, seconds_ago: float = 10.0, **changes: object):
    """A run that ended that long ago."""
    spec = changes.pop("spec", make_spec())
    status = make_status(closed_attempt(), result=result, ended_at=to_text(ago(seconds_ago)), **changes)
    return idle(status=status, spec=spec)


def test_a_deleted_run_is_left_to_the_garbage_collector():
    """No action, whatever else is wrong."""
    observed = running(pods=())
    observed = replace(observed, run=replace(observed.run, is_deleted=True))
    decision = decide(observed)
    assert (decision.rule, decision.reason, decision.actions) == ("run_deleted", "Deleted", ())


@pytest.mark.parametrize("result", ["Succeeded", "Failed"])
def test_a_finished_run_starts_nothing(result):
    """Terminal is terminal, even with a changed restartToken."""
    decision = decide(finished(result, spec=make_spec(restartToken="again")))
    assert (decision.rule, decision.reason) == ("run_finished", result)
    assert not actions(decision, CreateJob)
    assert decision.next_wake is None


def test_a_failed_run_keeps_telling_why():
    """Cause, evidence and action stand in the message after a restart of the operator too."""
    failure = FailureStatus(cause="OOMKilled", evidence=["Pod x was killed."], action="Raise it.")
    decision = decide(finished("Failed", failure=failure))
    assert decision.message == "Attempt 0 ended the run, OOMKilled: Pod x was killed. Raise it."


@pytest.mark.parametrize(
    ("seconds_ago", "rule"), [(59, "run_finished"), (60, "run_expired"), (600, "run_expired")], ids=str
)
def test_time_to_live_deletes_the_run_when_it_is_over(seconds_ago, rule):
    """Not a second earlier; before that the wake time is the expiry."""
    decision = decide(finished("Succeeded", seconds_ago, spec=make_spec(ttlSecondsAfterFinished=60)))
    assert decision.rule == rule
    if rule == "run_expired":
        assert actions(decision, DeleteRun) == [DeleteRun("run-uid")]
    else:
        assert decision.next_wake == ago(-1)


def test_a_live_run_never_expires():
    """ttl counts from the end."""
    assert decide(running(spec=make_spec(ttlSecondsAfterFinished=0))).rule == "attempt_runs"


@pytest.mark.parametrize("base", [idle(), running()], ids=["before", "during"])
def test_an_unworkable_spec_is_said_and_nothing_is_touched(base):
    """Stalled with the sentence; an open attempt goes on."""
    observed = replace(base, run=replace(base.run, spec=None, spec_error="spec.image is missing."))
    decision = decide(observed)
    assert decision.rule == "spec_unworkable"
    assert decision.message == "The spec cannot work: spec.image is missing."
    assert not actions(decision, StopJob)
    assert {c["type"]: c["status"] for c in decision.status["conditions"]}["Stalled"] == "True"
