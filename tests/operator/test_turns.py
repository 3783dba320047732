"""How many healthy runs share what may be written a second."""

from __future__ import annotations

from itertools import pairwise

import pytest
from trainrun_operator.cluster import Key, Object
from trainrun_operator.poller import Poller
from trainrun_operator.settings import Settings

from tests.operator.asked import WATCH, Stage


@pytest.fixture
def stage() -> Stage:
    """The stage."""
    return Stage()


class Fleet:
    """Many healthy runs, each asked every 30 s; a pass is over at once."""

    def __init__(self, stage: Stage, runs: int, per_second: float) -> None:
        self.stage = stage
        stage.poller = Poller(
            stage.cluster,
            stage.clock,
            Settings(progress_passes_per_second=per_second),
            stage.senses,
            enqueue=self._pass,
            on_error=lambda key, error: None,
        )
        stage.poller._running_pods = lambda key, attempt: [(0, self._pod(key))]
        self.passes: dict[Key, list[float]] = {Key("default", f"run-{number}"): [] for number in range(runs)}
        self.watch(*self.passes)

    def watch(self, *keys: Key) -> None:
        for key in keys:
            self.stage.poller.watch(key, WATCH)

    def _pod(self, key: Key) -> Object:
        labels = {"trainrun.dev/run": key.name, "training.kubeflow.org/replica-index": "0"}
        return {"metadata": {"name": f"{key.name}-a0-0", "labels": labels}}

    def _pass(self, key: Key) -> None:
        self.passes[key].append(self.stage.clock.monotonic())
        self.watch(key)

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.stage.poller.run_due()
            self.stage.clock.advance(1)


def test_many_runs_take_turns_at_renewing_their_progress(stage):
    """Ten passes a minute for all: with twenty runs each has its turn every two minutes, from the first minute on."""
    fleet = Fleet(stage, 20, 10 / 60)
    fleet.run(1200)
    turns = sorted(moment for moments in fleet.passes.values() for moment in moments)
    assert min(turns) == 60
    assert len(turns) == pytest.approx((1200 - 60) / 6, abs=10)
    for moments in fleet.passes.values():
        assert len(moments) in (9, 10)
        gaps = [after - before for before, after in pairwise([0.0, *moments, 1200.0])]
        assert max(gaps) <= 190, "60 s, then nineteen others' turns, then the next question"


def test_few_runs_renew_their_progress_every_minute(stage):
    """The limit for all is far."""
    fleet = Fleet(stage, 2, 2.5)
    fleet.run(301)
    assert list(fleet.passes.values()) == [[60.0, 120.0, 180.0, 240.0, 300.0]] * 2


def test_a_turn_that_waits_wakes_the_poller(stage):
    """Nobody is to be asked for half a minute, but the line has moved on by then."""
    fleet = Fleet(stage, 4, 2.0)
    fleet.run(60)
    stage.poller.run_due()
    assert [len(moments) for moments in fleet.passes.values()] == [1, 1, 0, 0]
    assert stage.poller.next_due_at() == 60.5
    stage.clock.advance(0.25)
    stage.poller.poll(next(iter(fleet.passes)), WATCH)
    assert stage.poller.next_due_at() == 60.5, "no other answer puts it off"
    stage.clock.advance(0.25)
    stage.poller.run_due()
    assert [len(moments) for moments in fleet.passes.values()] == [1, 1, 1, 0]


def test_a_run_that_is_gone_or_was_looked_at_loses_its_place_in_the_line(stage):
    """And takes no turn from the others."""
    fleet = Fleet(stage, 4, 1 / 60)
    fleet.run(61)
    first, gone, looked_at, last = fleet.passes
    stage.poller.watch(gone, None)
    fleet.watch(looked_at)
    fleet.run(60)
    assert [len(fleet.passes[key]) for key in (first, gone, looked_at, last)] == [1, 0, 0, 1]
