"""A run that starts from another run's result: when it waits, for what, and what it remembers."""

from __future__ import annotations

import json

import pytest
from trainrun_api.contract import Env
from trainrun_operator.core.decide import decide
from trainrun_operator.core.decision import CreateJob
from trainrun_operator.core.observed import Parent
from trainrun_operator.core.pytorchjob import render
from trainrun_operator.testing.manifests import small_spec

from tests.operator.builders import actions, ago, closed_attempt, idle, make_spec, make_status

RESUME = {"from": "Run", "run": "base"}
BASE = {"run": "base", "uid": "base-uid", "path": "file:///checkpoints/base"}


def base(result: str | None) -> Parent:
    """The run that comes first."""
    return Parent("base", "base-uid", "file:///checkpoints/base", result)


@pytest.mark.parametrize(
    ("parent", "reason", "phase"),
    [
        (None, "ParentMissing", "Stalled"),
        (base(None), "ParentAwaited", "Pending"),
        (base("Failed"), "ParentFailed", "Stalled"),
    ],
    ids=["missing", "trains", "failed"],
)
def test_it_waits_for_the_other_runs_success(parent, reason, phase):
    """Nothing is created, and it is looked for again."""
    decision = decide(idle(spec=make_spec(resume=RESUME), parent=parent))
    assert (decision.rule, decision.reason, decision.status["phase"]) == ("parent_awaited", reason, phase)
    assert decision.next_wake == ago(-15)
    assert actions(decision, CreateJob) == []
    assert "base" in decision.message


def test_the_first_attempt_remembers_where_the_result_is():
    """The other run may be deleted afterwards."""
    decision = decide(idle(spec=make_spec(resume=RESUME), parent=base("Succeeded")))
    assert decision.rule == "attempt_starts"
    assert decision.status["parent"] == BASE


def test_later_attempts_ask_for_nothing():
    """It was deleted: the place is known."""
    status = make_status(closed_attempt(), parent=BASE)
    assert decide(idle(spec=make_spec(resume=RESUME), status=status)).rule == "attempt_starts"


def test_pods_are_told_the_place():
    """As a path that the trainer opens."""
    metadata = {"name": "a", "namespace": "default", "uid": "u"}
    run = {"metadata": metadata, "spec": small_spec("a") | {"resume": RESUME}, "status": {"parent": BASE}}
    worker = render(run, 0, [], 2)["spec"]["pytorchReplicaSpecs"]["Worker"]
    env = {e["name"]: e.get("value") for e in worker["template"]["spec"]["containers"][0]["env"]}
    assert json.loads(env[Env.RESUME]) == RESUME | {"step": None, "path": "/checkpoints/base", "stage": None}
