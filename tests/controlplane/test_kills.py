"""Operators die, or are two: no attempt is lost or doubled, whatever the moment."""

from __future__ import annotations

import pytest

from tests.controlplane.dying import DyingOperator, killed_process
from tests.controlplane.pods import said
from tests.controlplane.proxy import Proxy
from tests.controlplane.stage import Stage
from tests.controlplane.stories import STORIES, fails_and_goes_on

TOLD_BY_TWO = ["fails_and_goes_on", "loses_a_node_object", "is_suspended_and_resumed", "waits_in_a_queue"]
"""A failure, a lost node, an edit and a queue; test_crashes.py interleaves two operators at every single call."""
FEWEST_WRITES = 4
"""A story that is shorter would test nothing: attempt, job, uid, Event."""


@pytest.mark.parametrize("story", STORIES)
def test_an_operator_that_dies_after_every_write_tells_the_same_story(stage: Stage, story: str) -> None:
    """So it is killed between every two writes."""
    with DyingOperator(stage).running() as operator:
        STORIES[story](stage)
    assert operator.deaths >= FEWEST_WRITES
    assert not operator.errors


def test_a_process_that_is_killed_after_every_write_tells_the_same_story(stage: Stage) -> None:
    """SIGKILL before it hears that the write was done; the next process starts from nothing."""
    with Proxy(stage.plane) as proxy, killed_process(stage, proxy) as operator:
        fails_and_goes_on(stage)
    assert operator.deaths >= FEWEST_WRITES


def test_a_killed_operator_s_successor_sees_what_happened_meanwhile(stage: Stage) -> None:
    """Killed while an attempt runs."""
    with stage.operator("one") as operator:
        stage.create_run("a")
        first = stage.wait_running("a", 0)[0]
        operator.process.kill()
    stage.trainers.end(first, 30, said(first, 30, "DeviceSuspect", step=7))
    with stage.operator("two"):
        stage.trainers.finish(stage.wait_running("a", 1))
        stage.wait_status("a", phase="Succeeded")
    assert stage.attempts("a") == [(0, "DeviceSuspect"), (1, "Done")]


@pytest.mark.parametrize("story", TOLD_BY_TWO)
def test_two_operators_at_once_are_harmless(stage: Stage, story: str) -> None:
    """Preconditions, not an election, keep them apart."""
    with stage.operator("one"), stage.operator("two"):
        STORIES[story](stage)
