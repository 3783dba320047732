"""What a finding leads to: budgets, ledgers, the user's own rules."""

from __future__ import annotations

import pytest
from trainrun_operator.core.failure_policy import (
    CAUSES,
    LEDGERS_KEPT,
    refined,
    rule_on,
)
from trainrun_operator.core.verdict import Finding

from tests.operator.builders import make_attempt, make_spec, make_status


def found(cause: str, **changes) -> Finding:
    """A finding of that cause."""
    return Finding(cause, "Certain", "Pod x did it.", **changes)


def sighted(finding: Finding, times: int, *, spec=None, checkpoint=None, step=50):
    """The ruling at the n-th sighting in a row."""
    status = make_status(make_attempt(), checkpoint={"step": checkpoint})
    ruling = None
    for _ in range(times):
        ruling = rule_on(finding, spec or make_spec(), status, step)
        update = {"ledgers": ruling.ledgers, "restarts": status.restarts + ruling.spends}
        status = status.model_copy(update=update)
    return ruling


@pytest.mark.parametrize(
    ("finding", "fails_at"),
    [
        (found("ProgramError", fingerprint="f", step=7), 2),
        (found("ProgramError", fingerprint="f"), 3),
        (found("ProgramError"), 11),
        (found("NumericalFault", step=7), 2),
        (found("OOMKilled"), 2),
        (found("DeviceOutOfMemory"), 2),
        (found("NeverStarted"), 2),
        (found("StorageEvicted"), 2),
        (found("BadConfig"), 1),
        (found("SegmentationFault"), 11),
        (found("Stalled"), 11),
        (found("TimeLimit", step=7), 3),
    ],
    ids=lambda v: f"{v.cause}-{v.fingerprint}-{v.step}" if isinstance(v, Finding) else str(v),
)
def test_a_repeated_failure_ends_the_run(finding, fails_at):
    """At the sighting that proves it deterministic, at the latest when the budget of 10 is spent."""
    assert not any(sighted(finding, n).fails_run for n in range(1, fails_at))
    assert sighted(finding, fails_at).fails_run


@pytest.mark.parametrize("cause", ["NodeLost", "Preempted", "Drained", "Evicted", "DeviceSuspect", "NodeMarked"])
def test_what_is_not_the_programs_fault_never_ends_the_run(cause):
    """A thousand node faults spend nothing and wait for nothing."""
    ruling = sighted(found(cause), 30)
    assert (ruling.fails_run, ruling.spends, ruling.delay_seconds) == (False, False, 0.0)


@pytest.mark.parametrize("cause", ["JobDeleted", "PodDeleted", "Stopped", "Terminated"])
def test_free_restarts_in_a_row_without_progress_begin_to_wait(cause):
    """Somebody deletes the job again and again: three start at once, then the back-off begins; nothing is spent."""
    assert [sighted(found(cause), n).delay_seconds for n in (1, 3, 4, 5, 99)] == [0, 0, 10, 20, 600]
    assert not sighted(found(cause), 99).fails_run
    status = make_status(make_attempt(), ledgers=sighted(found(cause), 9).ledgers, checkpoint={"step": 60})
    assert rule_on(found(cause), make_spec(), status, 70).delay_seconds == 0


def test_another_step_starts_a_new_count():
    """Progress past the failure means that it was not deterministic."""
    status = make_status(make_attempt())
    for step in (7, 8, 9):
        ruling = rule_on(found("NumericalFault", step=step), make_spec(), status, None)
        assert not ruling.fails_run
        status = status.model_copy(update={"ledgers": ruling.ledgers})


def test_back_off_doubles_until_a_newer_checkpoint():
    """10, 20, 40 s; progress starts it anew."""
    assert [sighted(found("Aborted"), n).delay_seconds for n in (1, 2, 3)] == [10, 20, 40]
    old = sighted(found("Aborted"), 3, checkpoint=40)
    status = make_status(make_attempt(), ledgers=old.ledgers, checkpoint={"step": 60})
    assert rule_on(found("Aborted"), make_spec(), status, 70).delay_seconds == 10


@pytest.mark.parametrize("cause", ["Killed", "Stalled", "NumericalFault"])
def test_a_fault_that_may_be_the_hardwares_does_not_wait(cause):
    """It spends the budget, but restarts at once."""
    ruling = sighted(found(cause), 1)
    assert (ruling.spends, ruling.delay_seconds) == (True, 0.0)


@pytest.mark.parametrize(
    ("rule", "finding", "expected"),
    [
        ({"action": "FailRun", "onCauses": ["NodeLost"]}, found("NodeLost"), (True, False, True)),
        ({"action": "FailRun", "onExitCodes": [42]}, found("ProgramError", exit_code=42), (True, False, False)),
        ({"action": "FailRun", "onExitCodes": [42]}, found("ProgramError", exit_code=1), (False, True, False)),
        ({"action": "Restart", "onCauses": ["BadConfig"]}, found("BadConfig"), (False, True, False)),
        ({"action": "RestartElsewhere", "onLogPattern": "NaN"}, found("Aborted", log_tail="NaN"), (False, True, True)),
        ({"action": "RestartElsewhere", "onLogPattern": "NaN"}, found("Aborted", log_tail="ok"), (False, True, False)),
        ({"action": "RestartIgnoringBudget", "onCauses": ["Killed"]}, found("Killed"), (False, False, False)),
        ({"action": "RestartIgnoringBudget", "onCauses": ["Aborted"]}, found("Killed"), (False, True, False)),
        ({"action": "FailRun", "onCauses": ["Killed"], "onExitCodes": [9]}, found("Killed"), (False, True, False)),
    ],
)  # fmt: skip
def test_the_users_rules_come_first_and_all_their_conditions_hold(rule, finding, expected):
    """(fails the run, spends, moves)."""
    spec = make_spec(failurePolicy={"rules": [{"name": "mine"} | rule]})
    ruling = sighted(finding, 1, spec=spec)
    assert (ruling.fails_run, ruling.spends, ruling.moves) == expected
    if ruling.fails_run:
        assert "'mine'" in ruling.action


def test_the_first_of_the_users_rules_wins():
    """Order is precedence."""
    rules = [{"name": "a", "action": "Restart", "onCauses": ["Killed"]}, {"name": "b", "action": "FailRun"}]
    assert not sighted(found("Killed"), 1, spec=make_spec(failurePolicy={"rules": rules})).fails_run
    assert sighted(found("Aborted"), 1, spec=make_spec(failurePolicy={"rules": rules})).fails_run


def test_a_users_restart_rule_lifts_the_sightings_limit_but_not_the_budget():
    """Twice the same OOM: the user said restart."""
    rules = [{"name": "a", "action": "Restart", "onCauses": ["OOMKilled"]}]
    spec = make_spec(failurePolicy={"rules": rules, "maxRestarts": 5})
    assert not sighted(found("OOMKilled"), 5, spec=spec).fails_run
    assert sighted(found("OOMKilled"), 6, spec=spec).fails_run


@pytest.mark.parametrize(
    ("finding", "words"),
    [
        (found("Killed"), "It restarts at once (restart 1 of 10)."),
        (found("Aborted"), "It restarts in 10 s (restart 1 of 10)."),
        (found("NodeLost"), "It restarts at once, away from that node (free of the restart budget)."),
        (found("PeerLost"), "It restarts at once (free of the restart budget)."),
        (found("NumericalFault"), "It restarts at once, on other nodes if there are any (restart 1 of 10)."),
    ],
    ids=lambda v: v.cause if isinstance(v, Finding) else "",
)
def test_the_action_says_when_where_and_what_is_left(finding, words):
    """For status, event and `trainrun explain`."""
    assert sighted(finding, 1).action == words


def test_ledgers_are_bounded_and_the_oldest_give_way():
    """Whatever shape another version wrote."""
    ledgers = {f"c{n}": {"count": 1, "attempt": n} for n in range(LEDGERS_KEPT)} | {"odd": 7}
    status = make_status(make_attempt(99), ledgers=ledgers)
    kept = rule_on(found("Killed"), make_spec(), status, None).ledgers
    assert len(kept) == LEDGERS_KEPT
    assert "Killed" in kept
    assert not {"odd", "c0"} & set(kept)


def test_a_ledger_in_an_unknown_shape_counts_as_none():
    """Rollback of the operator in mid-run."""
    status = make_status(make_attempt(), ledgers={"OOMKilled": "odd", "backoff": "odd"})
    ruling = rule_on(found("OOMKilled"), make_spec(), status, None)
    assert (ruling.fails_run, ruling.delay_seconds) == (False, 10)


def test_eviction_for_local_storage_is_the_programs_doing():
    """Other evictions are the node's."""
    storage = Finding("Evicted", "Certain", "Pod x Evicted: ephemeral-storage usage exceeds.")
    assert refined(storage).cause == "StorageEvicted"
    assert refined(found("Evicted")).cause == "Evicted"


def test_every_cause_that_fails_the_run_says_what_to_do():
    """A terminal message without advice helps nobody."""
    assert not [c for c, p in CAUSES.items() if p.sightings is not None and not p.advice]
