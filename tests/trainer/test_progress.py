"""How long a phase may be silent: told from its own past, so that a hang in a save is a hang soon."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trainrun_trainer import progress
from trainrun_trainer.progress import ProgressWriter


class Clock:
    """Monotonic time that a test moves."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The module's clock."""
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "rank0.json").read_text())


def test_a_phase_tells_how_long_it_may_be_silent(tmp_path: Path, clock: Clock) -> None:
    """First a guess, then 20 x the slowest one before, 10 s more each time; never above the contract's allowance."""
    writer = ProgressWriter(str(tmp_path), "r", 0, 0, SimpleNamespace(rank=0, local_rank=0))
    told = []
    for seconds in (2.0, 1.0, 200.0, 1.0):
        with writer.during("checkpointing", 3.0):
            told.append(record(tmp_path)["expected_next_within_seconds"])
            clock.seconds += seconds
        assert record(tmp_path)["expected_next_within_seconds"] is None
        assert record(tmp_path)["phase"] == "starting"
    assert told == [13.0, 50.0, 50.0, 900.0]


def test_without_a_guess_the_contract_speaks(tmp_path: Path, clock: Clock) -> None:
    """None means: the table of the contract."""
    writer = ProgressWriter(str(tmp_path), "r", 0, 0, SimpleNamespace(rank=0, local_rank=0))
    with writer.during("evaluating"):
        assert record(tmp_path)["expected_next_within_seconds"] is None
    assert writer.slowest_step_seconds() is None
    writer.step_done(1, 2.0, 64, 64, 0.5)
    assert (writer.slowest_step_seconds(), record(tmp_path)["slowest_step_seconds"]) == (0.5, 0.5)


def test_a_phase_that_fails_ends_as_well(tmp_path: Path, clock: Clock) -> None:
    """A save that raises leaves neither its phase nor its allowance behind."""
    writer = ProgressWriter(str(tmp_path), "r", 0, 0, SimpleNamespace(rank=0, local_rank=0))
    with pytest.raises(OSError, match="full"), writer.during("checkpointing", 3.0):
        raise OSError("full")
    assert (record(tmp_path)["phase"], record(tmp_path)["expected_next_within_seconds"]) == ("starting", None)
