"""Back-off, times and the arithmetic of limits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainrun_operator.core.backoff import gang_delay_seconds, restart_delay_seconds
from trainrun_operator.core.observed import AgentFacts, ProgressFacts
from trainrun_operator.core.situation import situate
from trainrun_operator.core.stall import blind_since, limit_seconds
from trainrun_operator.core.times import earliest, from_text, seconds_between, to_second, to_text

from tests.operator.builders import make_progress, make_spec, running, silent

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.mark.parametrize(("failures", "seconds"), [(0, 0), (1, 10), (2, 20), (6, 320), (7, 600), (1000, 600)], ids=str)
def test_restart_delay_doubles_to_ten_minutes(failures, seconds):
    """And no further."""
    assert restart_delay_seconds(failures) == seconds


def test_gang_delay_is_jittered_by_run_and_attempt_and_repeatable():
    """Two runs that block each other come back at different times; a successor computes the same."""
    delays = {gang_delay_seconds(uid, n, 1) for uid in ("a", "b") for n in range(20)}
    assert len(delays) == 40
    assert all(15 <= d < 45 for d in delays)
    assert gang_delay_seconds("a", 3, 2) == gang_delay_seconds("a", 3, 2)
    assert gang_delay_seconds("a", 3, 99) < 900


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_survive_writing_to_the_millisecond(moment):
    """Text and back."""
    again = from_text(to_text(moment))
    assert again is not None
    assert again == moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def test_times_are_utc_and_have_a_zone():
    """Whatever zone they came in."""
    elsewhere = MOMENT.astimezone(timezone(timedelta(hours=5)))
    assert to_text(elsewhere) == "2026-01-02T03:04:05.678Z"
    assert to_second(elsewhere) == "2026-01-02T03:04:05Z"
    assert from_text("2026-01-02T03:04:05") == MOMENT.replace(microsecond=0)
    assert from_text(None) is None
    assert from_text("") is None


def test_earliest_ignores_what_is_unknown():
    """None is not the beginning of time."""
    assert earliest(None, MOMENT, MOMENT + timedelta(seconds=1)) == MOMENT
    assert earliest(None) is None


def test_spans_are_never_negative():
    """Clocks of two machines differ."""
    assert seconds_between(MOMENT, MOMENT - timedelta(seconds=5)) == 0
    assert seconds_between(MOMENT, MOMENT + timedelta(milliseconds=1500)) == 1.5


@pytest.mark.parametrize(
    ("slowest", "limit"), [(0.1, 10), (0.5, 10), (1.0, 20), (60.0, 1200), (100.0, 1800), (None, 1800)], ids=str
)
def test_the_automatic_stall_limit_follows_the_slowest_step_within_bounds(slowest, limit):
    """20 x the slowest of the last 50, 10 s to 30 min; unknown: the longest."""
    observed = running(progress=make_progress(slowest_step_seconds=slowest))
    assert limit_seconds(situate(observed), observed.progress.record) == limit


@pytest.mark.parametrize(
    ("phase", "limit"),
    [
        ("training", 20), ("checkpointing", 920), ("evaluating", 3620), ("compiling", 3620),
        ("finishing", 1820), ("starting", 300), ("new", 20),
    ],
)  # fmt: skip
def test_each_phase_has_its_allowance(phase, limit):
    """A phase that we do not know gets none; starting is governed by the startup limit."""
    observed = running(progress=make_progress(phase=phase), spec=make_spec(health={"startupTimeoutSeconds": 300}))
    assert limit_seconds(situate(observed), observed.progress.record) == limit


@pytest.mark.parametrize(
    ("agents", "is_blind"),
    [
        ({}, False),
        ({0: silent()}, True),
        ({0: silent(), 1: silent()}, True),
        ({0: silent(), 1: AgentFacts()}, False),
        ({0: AgentFacts(None, None)}, False),
    ],
    ids=["nobody asked", "the only one asked", "both", "one not silent", "no answer yet"],
)
def test_blind_means_that_everyone_who_was_asked_is_silent(agents, is_blind):
    """Not asked is not silent."""
    assert (blind_since(situate(running(progress=ProgressFacts(0, agents=agents)))) is not None) == is_blind


def test_a_run_without_living_pods_is_not_blind():
    """There is nobody to ask."""
    assert blind_since(situate(running(pods=(), progress=ProgressFacts(0, agents={0: silent()})))) is None
