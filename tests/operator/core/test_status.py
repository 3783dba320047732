"""Conditions, events and the watch of a decision."""

from __future__ import annotations

from dataclasses import replace

import pytest
from trainrun_api.v1alpha1 import Condition, ProgressStatus, TrainingRunStatus
from trainrun_operator.core import reasons
from trainrun_operator.core.decide import decide
from trainrun_operator.core.decision import RecordEvent
from trainrun_operator.core.goodput import CLASSES
from trainrun_operator.core.times import to_second, to_text

from tests.operator.builders import (
    actions,
    ago,
    applied,
    closed_attempt,
    ended_pod,
    idle,
    make_attempt,
    make_pod,
    make_progress,
    make_spec,
    make_status,
    pending_pod,
    running,
    words,
)


def conditions(decision) -> dict[str, str]:
    """Type -> status."""
    return {c["type"]: c["status"] for c in decision.status["conditions"]}


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (running(), {"Ready": "True", "Completed": "False", "CheckpointFresh": "True"}),
        (idle(), {"Ready": "False", "Reconciling": "True", "Completed": "False"}),
        (idle(spec=make_spec(suspend=True)), {"Ready": "True", "Completed": "False"}),
        (
            running(pods=(ended_pod(0, 20, words(20)),)),
            {"Ready": "False", "Stalled": "True", "Completed": "False", "CheckpointFresh": "Unknown"},
        ),
        (
            running(pods=(ended_pod(0, 0, words(0)),)),
            {"Ready": "True", "Completed": "True", "CheckpointFresh": "Unknown"},
        ),
    ],
    ids=["running", "starting", "suspended", "failed", "succeeded"],
)
def test_conditions_follow_kstatus(observed, expected):
    """Reconciling and Stalled are there only while true."""
    assert conditions(decide(observed)) == expected


def test_every_condition_names_the_generation_it_saw():
    """Argo CD, Flux and helm --wait compare it."""
    observed = running()
    decision = decide(replace(observed, run=replace(observed.run, generation=7)))
    assert decision.status["observedGeneration"] == 7
    assert {c["observedGeneration"] for c in decision.status["conditions"]} == {7}


def test_transition_times_change_with_the_status_only():
    """A new message keeps the old time."""
    old = Condition(type="Ready", status="True", reason="Other", last_transition_time=to_second(ago(500)))
    foreign = Condition(type="Mine", status="True", reason="x")
    status = make_status(make_attempt(), conditions=[old, foreign])
    found = {c["type"]: c for c in decide(running(status=status)).status["conditions"]}
    assert found["Ready"]["lastTransitionTime"] == to_second(ago(500))
    assert found["Completed"]["lastTransitionTime"] == to_second(ago(0))
    assert found["Mine"]["reason"] == "x"


def test_events_tell_changes_once():
    """The same reason again is no news, unless it is about another attempt."""
    observed = running()
    first = decide(observed)
    assert [e.reason for e in first.actions] == ["Running"]
    assert decide(applied(observed, first)).actions == ()


def test_the_same_reason_for_another_attempt_is_news():
    """Two starts are two events."""
    before = Condition(type="Ready", status="False", reason="AttemptStarted")
    decision = decide(idle(status=make_status(closed_attempt(), conditions=[before])))
    assert [e.reason for e in actions(decision, RecordEvent)] == ["AttemptStarted"]


@pytest.mark.parametrize(
    ("interval", "slowest", "age", "fresh"),
    [
        ("auto", 1.0, 899, "True"),
        ("auto", 1.0, 900, "False"),
        ("10m", 1.0, 1799, "True"),
        ("10m", 1.0, 1800, "False"),
        ("90s", 1.0, 900, "False"),
        ("1h", 1.0, 10799, "True"),
        (1000, 1.0, 2999, "True"),
        (1000, 1.0, 3000, "False"),
        (1000, None, 900, "False"),
    ],
)  # fmt: skip
def test_a_checkpoint_older_than_three_intervals_is_called_old(interval, slowest, age, fresh):
    """And than 15 minutes."""
    progress = make_progress(durable_checkpoint={"step": 40, "age_seconds": age - 1.0}, slowest_step_seconds=slowest)
    spec = make_spec(checkpoint={"path": "/c", "interval": interval})
    decision = decide(running(progress=progress, spec=spec))
    assert conditions(decision)["CheckpointFresh"] == fresh
    assert (decision.next_wake is None) == (fresh == "False")


def test_a_checkpoint_of_unknown_age_is_not_called_old():
    """An image that names the step only."""
    decision = decide(running(progress=make_progress(durable_checkpoint={"step": 40})))
    assert conditions(decision)["CheckpointFresh"] == "True"
    unheard = running(progress=make_progress(durable_checkpoint={"claim": 40}))
    assert "CheckpointFresh" not in conditions(decide(unheard))


@pytest.mark.parametrize(("age", "step"), [(59, 3), (60, 50)], ids=["young", "a minute old"])
def test_progress_is_written_at_most_once_a_minute(age, step):
    """Between, the old figures stay."""
    progress = ProgressStatus(step=3, updated_at=to_text(ago(age + 1)))
    decision = decide(running(status=make_status(make_attempt(), progress=progress)))
    assert decision.status["progress"]["step"] == step


def test_another_attempts_progress_is_not_taken_over():
    """An answer that came late."""
    assert "progress" not in decide(running(progress=make_progress(attempt=3))).status


def test_a_status_holds_nothing_that_says_nothing():
    """Empty lists, denials and zeros of an attempt would bury what matters; a reader takes them as they usually are."""
    status = decide(running()).status
    assert (status["restarts"], "ledgers" in status, "nodes" in status) == (0, False, False)
    assert [v for v in status["attempts"][-1].values() if v == [] or v == "" or v is False] == []
    assert TrainingRunStatus.model_validate(status).attempts[-1].excluded == []


def test_phase_and_message_come_from_one_table():
    """The outcome's."""
    decision = decide(running())
    assert (decision.status["phase"], decision.message) == ("Running", "Attempt 0 trains.")


def test_every_outcome_books_its_time_on_a_known_class():
    """`finished` is not booked."""
    assert {o.goodput for o in reasons.ALL.values()} <= {*CLASSES, "finished"}


def test_unknown_fields_of_another_version_are_kept():
    """Rollback must not lose what the newer version wrote."""
    status = make_status(make_attempt(new_field=1), later={"x": 1})
    written = decide(running(status=status)).status
    assert written["later"] == {"x": 1}
    assert written["attempts"][0]["new_field"] == 1


def test_a_program_that_reports_nothing_has_no_watch_limits():
    """Unknown is shown as unknown."""
    decision = decide(running(progress=make_progress(attempt=9)))
    assert (decision.watch.step_age_limit_seconds, decision.watch.phase) == (None, "")


def test_the_image_that_ran_is_on_record():
    """The first that is known: an attempt has one image."""
    pods = (make_pod(0), make_pod(1, image_id="r/t@sha256:1"))
    status = decide(running(pods=pods)).status
    assert status["attempts"][0]["image"] == "r/t@sha256:1"
    later = running(
        pods=(make_pod(0, image_id="r/t@sha256:2"), make_pod(1)), attempt=make_attempt(image="r/t@sha256:1")
    )
    assert decide(later).status["attempts"][0]["image"] == "r/t@sha256:1"


def test_nodes_are_noted_when_the_gang_has_all_of_them():
    """Not as each pod gets its own: a write per pod of a run is what a busy API server does not need."""
    attempt = make_attempt(nodes=[], scheduled_at=None, first_step_at=None)
    half = running(attempt=attempt, pods=(make_pod(0), pending_pod(1)))
    assert "nodes" not in decide(half).status["attempts"][0]
    assert decide(running(attempt=attempt)).status["attempts"][0]["nodes"] == ["n0", "n1"]
