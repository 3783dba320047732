"""Batch arithmetic and cadence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainrun_api.train_config import ScheduleConfig, TrainConfig
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.plan import SaveInterval, make_plan, parse_interval
from trainrun_trainer.schedule import learning_rate


def config(**changes: Any) -> TrainConfig:
    """A small configuration."""
    data = {"sources": {"a": {"path": "a"}}, "tokenizer": {"vocab_size": 300}, "row_tokens": 16}
    raw = {"model": {"architecture": {}}, "data": data, "total_steps": 10, "global_batch_rows": 12, **changes}
    return TrainConfig.model_validate(raw)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(1, 9))
def test_each_row_of_a_step_is_computed_once(world: int, share: int, micro: int, step: int) -> None:
    """The slots of all ranks are the global batch, in one order, whatever the number of ranks."""
    plan = make_plan(config(global_batch_rows=world * share * micro, micro_batch_rows=micro), "auto", world)
    slots = [slot for rank in range(world) for slot in plan.slots_of(rank)]
    assert slots == list(range(plan.num_slots))
    rows = [row for slot in slots for row in plan.positions_of(step, slot)]
    assert rows == list(range((step - 1) * plan.global_batch_rows, step * plan.global_batch_rows))


@pytest.mark.parametrize(
    ("changes", "world", "names"),
    [
        pytest.param({"micro_batch_rows": 5}, 1, ["micro_batch_rows=5", "global_batch_rows=12"], id="micro batch"),
        pytest.param({"micro_batch_rows": 3}, 3, ["global_batch_rows=12", "4 slots", "3 workers"], id="workers"),
    ],
)
def test_a_batch_that_does_not_divide_is_refused_by_name(changes: dict[str, Any], world: int, names: list[str]) -> None:
    """The sentence has the fields and the numbers."""
    with pytest.raises(ConfigError) as refusal:
        make_plan(config(**changes), "auto", world)
    assert all(name in str(refusal.value) for name in names)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ("auto", SaveInterval(50, 300.0)), (7, SaveInterval(7, None)), ("7", SaveInterval(7, None)),
        ("90s", SaveInterval(None, 90.0)), ("10m", SaveInterval(None, 600.0)), ("1h", SaveInterval(None, 3600.0)),
    ],
)  # fmt: skip
def test_intervals(interval: int | str, expected: SaveInterval) -> None:
    """Steps, durations, or both."""
    assert parse_interval(interval) == expected


@pytest.mark.parametrize("interval", [0, "0", "0s", "soon", "-5", "1d", ""])
def test_bad_intervals_are_refused(interval: int | str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ConfigError, match=r"checkpoint\.interval"):
        parse_interval(interval)


def test_what_is_due() -> None:
    """Evaluation at 0, multiples and the end; saves at multiples and the end."""
    plan = make_plan(config(eval={"every_steps": 4}), 5, 1)
    assert [step for step in range(11) if plan.is_eval_due(step)] == [0, 4, 8, 10]
    assert [step for step in range(1, 11) if plan.is_save_due(step)] == [5, 10]
    without = make_plan(config(), "1h", 1)
    assert not any(without.is_eval_due(step) for step in range(11))
    assert [step for step in range(1, 11) if without.is_save_due(step)] == [10]


@given(st.integers(0, 20), st.integers(1, 100), st.floats(0, 1))
def test_the_rate_warms_up_and_ends_at_its_floor(warmup: int, more: int, ratio: float) -> None:
    """Rises to the peak, falls to the floor, never leaves (0, peak]."""
    schedule = ScheduleConfig(warmup_steps=warmup, min_lr_ratio=ratio)
    total = warmup + more
    rates = [learning_rate(step, 2.0, schedule, total) for step in range(1, total + 1)]
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rates[-1] == pytest.approx(2.0 * ratio)
    assert all(0 <= rate <= 2.0 for rate in rates)
