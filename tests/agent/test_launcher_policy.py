"""Which worker groups may be restarted in place: a pure rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
from trainrun_trainer.launcher_policy import (
    MAX_COLLATERAL_WITHOUT_CHECKPOINT,
    MAX_RESTARTS_WITHOUT_CHECKPOINT,
    Failure,
    RestartBudget,
    first_cause,
)
from trainrun_trainer.launcher_worker import crash_facts, is_collateral

KILLED = Failure(1, 1, 1, "rank 1 was killed by SIGKILL", "SIGKILL", 5.0, step=3, signal=9)
RAISED = Failure(0, 0, 1, "rank 0 raised ValueError", "ValueError@a.py:f:1", 4.0, step=3)
LOST = Failure(0, 0, 1, "rank 0 raised RuntimeError", "RuntimeError@b.py:g:2", 3.0, step=3, collateral=True)


@pytest.mark.parametrize(
    ("failures", "first"),
    [([LOST, KILLED], KILLED), ([LOST, RAISED], RAISED), ([RAISED, KILLED], KILLED), ([LOST], LOST)],
    ids=["signal-before-lost-peer", "own-error-before-lost-peer", "signal-before-error", "only-lost-peer"],
)
def test_the_failure_that_began_it_is_found(failures: list[Failure], first: Failure) -> None:
    """Also when its echo in another rank was seen earlier."""
    assert first_cause(failures) is first
    assert first_cause(failures[::-1]) is first


def decisions(*seen: tuple[Failure, int | None]) -> list[bool]:
    """Whether each of a row of failures, with the durable step at its time, may be followed by a restart."""
    budget, allowed = RestartBudget(), []
    for failure, durable in seen:
        budget, refusal = budget.after(failure, durable)
        allowed.append(refusal is None)
    return allowed


def at(failure: Failure, step: int) -> Failure:
    """The same failure at another step."""
    return replace(failure, step=step)


def test_two_restarts_without_a_new_checkpoint_are_the_limit() -> None:
    """Different failures, no checkpoint in between: the third is refused."""
    assert MAX_RESTARTS_WITHOUT_CHECKPOINT == 2
    assert decisions((at(KILLED, 1), 0), (at(KILLED, 2), 0), (at(KILLED, 3), 0)) == [True, True, False]


def test_a_new_checkpoint_renews_the_budget() -> None:
    """A group that gets on may be restarted as often as it needs."""
    assert decisions(*((at(KILLED, k), k) for k in range(1, 9))) == [True] * 8


def test_the_same_failure_at_the_same_step_is_not_tried_twice() -> None:
    """Not even after a new checkpoint: the program's own error will come again."""
    assert decisions((RAISED, 0), (RAISED, 0)) == [True, False]
    assert decisions((RAISED, 0), (RAISED, 2)) == [True, False]
    assert decisions((RAISED, 0), (at(RAISED, 4), 0)) == [True, True]


def test_a_lost_peer_is_followed_longer_but_not_for_ever() -> None:
    """The peer's launcher decides; this one only guards against an endless row."""
    limit = MAX_COLLATERAL_WITHOUT_CHECKPOINT
    assert decisions(*[(LOST, 0)] * (limit + 1)) == [True] * limit + [False]


@pytest.mark.parametrize(
    ("error", "is_echo"),
    [
        (RuntimeError("[pair.cc:553] Connection closed by peer [10.0.0.2]:1234"), True),
        (RuntimeError("Gloo connectFullMesh failed with ... connection refused"), True),
        (ConnectionResetError("[Errno 104] Connection reset by peer"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("connection closed by peer"), False),
    ],
    ids=["gloo", "store", "socket", "program", "other-type"],
)
def test_an_echo_of_a_lost_peer_is_recognised(error: Exception, is_echo: bool) -> None:
    """By type and words; a program's error must not hide behind it."""
    assert is_collateral(error) is is_echo


def test_a_fingerprint_names_type_and_own_frame() -> None:
    """Equal for the same line, whatever the message's numbers; the sentence keeps no secret."""
    facts = [crash_facts(raised(text)) for text in ("at 1: API_KEY=abc", "at 2: API_KEY=def")]
    assert facts[0]["fingerprint"] == facts[1]["fingerprint"]
    assert facts[0]["fingerprint"].startswith("ValueError@test_launcher_policy.py:raised:")
    assert facts[0]["message"] == "ValueError: at 1: API_KEY=***"


def raised(text: str) -> Exception:
    """An error with a traceback."""
    try:
        raise ValueError(text)
    except ValueError as error:
        return error
