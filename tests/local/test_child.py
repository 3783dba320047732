"""The operator process is kept alive, but not for ever."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from trainrun_operator.errors import LocalModeError
from trainrun_operator.local import child
from trainrun_operator.local.child import SHORT_LIVES_LIMIT, OperatorChild
from trainrun_operator.local.layout import RunDir


@pytest.fixture
def run_dir(workdir: Path) -> RunDir:
    """An empty run."""
    made = RunDir(workdir / "r")
    made.make()
    return made


def until_it_ends(process: OperatorChild) -> str:
    """Keep it alive until it has died once; returns how."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ending = process.keep_alive()
        if ending is not None:
            return ending
        time.sleep(0.01)
    raise AssertionError("it lives on")


def test_a_killed_operator_is_followed_by_another(run_dir: RunDir) -> None:
    """The signal is told, the next one has another pid, and stopping ends it."""
    operator = OperatorChild(run_dir)
    operator.keep_alive()
    first = operator.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert "died (signal 9)" in until_it_ends(operator)
    while operator.pid is None:
        operator.keep_alive()
    assert operator.pid != first
    operator.stop()
    assert operator.pid is None


def test_an_operator_that_cannot_live_is_given_up_with_a_sentence(
    run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log is named; nobody waits for the ninth death."""
    monkeypatch.setattr(child.sys, "executable", "/bin/false")
    monkeypatch.setattr(child, "FIRST_DELAY_SECONDS", 0.001)
    operator = OperatorChild(run_dir)
    with pytest.raises(LocalModeError, match=f"died {SHORT_LIVES_LIMIT + 1} times in a row.*operator.log"):
        for _ in range(SHORT_LIVES_LIMIT + 1):
            until_it_ends(operator)
