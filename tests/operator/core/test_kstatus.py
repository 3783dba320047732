"""What GitOps tools read: at every outcome, exactly one of Ready, Reconciling and Stalled is True."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from trainrun_operator.core import reasons
from trainrun_operator.core.decide import decide
from trainrun_operator.core.outcome import Outcome

from tests.operator.builders import idle, make_spec, make_status, running, settled

every_outcome = pytest.mark.parametrize("outcome", reasons.ALL.values(), ids=reasons.ALL)

VERDICTS = {"Ready", "Reconciling", "Stalled"}
"""What kstatus looks at."""


def conditions(outcome: Outcome, generation: int = 1) -> dict[str, dict[str, Any]]:
    """Conditions of a run with this outcome, by type."""
    observed = running()
    decision = settled(outcome, replace(observed, run=replace(observed.run, generation=generation)))
    return {c["type"]: c for c in decision.status["conditions"]}


@every_outcome
def test_one_of_three_verdicts_is_true(outcome):
    """The outcome's own; a tool that reads any of them never meets a contradiction."""
    found = conditions(outcome)
    assert {kind for kind in VERDICTS & set(found) if found[kind]["status"] == "True"} == {outcome.kstatus}


@every_outcome
def test_abnormal_conditions_are_absent_unless_true(outcome):
    """Reconciling and Stalled by convention; Ready is always there, for tools that know nothing else."""
    found = conditions(outcome)
    assert set(found) - {"CheckpointFresh"} == {"Ready", "Completed", outcome.kstatus}
    assert found["Ready"]["status"] in ("True", "False")


@every_outcome
def test_every_condition_says_what_it_saw_and_why(outcome):
    """Generation, reason and a sentence; the verdicts share the outcome's."""
    found = conditions(outcome, generation=7)
    assert {c["observedGeneration"] for c in found.values()} == {7}
    assert all(c["reason"] and c["message"] and c["lastTransitionTime"] for c in found.values())
    assert {found[kind]["reason"] for kind in (VERDICTS & set(found)) | {"Completed"}} == {outcome.reason}


def test_a_suspended_run_is_as_its_spec_wants_it():
    """Ready: otherwise `helm install --wait` of a run with spec.suspend waits until it times out, and fails."""
    found = {c["type"]: c["status"] for c in decide(idle(spec=make_spec(suspend=True))).status["conditions"]}
    assert found == {"Ready": "True", "Completed": "False"}


def test_a_run_on_its_way_to_rest_is_not_there_yet():
    """Its pods still save."""
    found = {c["type"]: c["status"] for c in decide(running(spec=make_spec(suspend=True))).status["conditions"]}
    assert (found["Ready"], found["Reconciling"]) == ("False", "True")


def test_the_definitions_default_of_a_status_is_a_status_that_nobody_wrote():
    """The API server fills in observedGeneration -1: decided upon as if it were absent."""
    unseen = make_status(observed_generation=-1)
    assert decide(idle(status=unseen)).status == decide(idle()).status
