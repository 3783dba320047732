"""What may be deleted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainrun_trainer.retention import Stored, to_delete

CHECKPOINTS = st.frozensets(st.builds(Stored, st.integers(0, 40), st.just(1)), max_size=12)


def at(*steps: int, claim: int = 1) -> list[Stored]:
    """Checkpoints of one claim."""
    return [Stored(step, claim) for step in steps]


@pytest.mark.parametrize(
    ("history", "strays", "every", "protected", "proven", "expected"),
    [
        pytest.param(at(0, 10, 20, 30), [], None, [], at(30), at(0, 10), id="keep last two"),
        pytest.param(at(0, 10, 20, 30), [], None, [], [], [], id="none proven: all stay"),
        pytest.param(at(0, 10, 20, 30), [], None, [], at(10), at(0), id="newest proven stays"),
        pytest.param(at(0, 10, 20, 30), [], 10, [], at(30), [], id="multiples stay"),
        pytest.param(at(0, 10, 20, 30), [], None, at(0), at(30), at(10), id="parent stays"),
        pytest.param(at(20, 30), at(25, claim=2), None, [], at(30), at(25, claim=2), id="strays go"),
        pytest.param(at(20, 30), at(25, claim=2), None, at(25, claim=2), [], [], id="protected stray stays"),
        pytest.param(at(0, 10), [], None, [], at(10), [], id="few stay"),
    ],
)
def test_retention(
    history: list[Stored], strays: list[Stored], every: int | None, protected: list[Stored], proven: list[Stored],
    expected: list[Stored],
) -> None:  # fmt: skip
    """A table of cases, keep_last = 2."""
    assert to_delete(history, strays, 2, every, set(protected), set(proven)) == expected


@given(CHECKPOINTS, CHECKPOINTS, CHECKPOINTS, st.integers(2, 5), st.none() | st.integers(1, 10))
def test_what_must_stay_stays(
    history: frozenset[Stored], proven: frozenset[Stored], protected: frozenset[Stored], keep: int, every: int | None
) -> None:
    """The newest ones, the newest proven one, the protected ones; and something whenever there was something."""
    doomed = set(to_delete(history, [], keep, every, protected, proven))
    left = history - doomed
    assert set(sorted(history)[-keep:]) <= left
    assert protected & history <= left
    assert not proven & history or max(proven & history) in left
    assert not every or all(c.step % every for c in doomed)
    assert doomed <= history
