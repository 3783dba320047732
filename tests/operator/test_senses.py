"""What agents said, and what silence means."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta

import pytest
from trainrun_api.contract import Progress
from trainrun_operator.cluster import Key, ProgressAnswer
from trainrun_operator.core.observed import Refusal
from trainrun_operator.senses import Senses

from tests.operator.builders import NOW, ago

KEY = Key("default", "a")


@pytest.fixture
def senses() -> Senses:
    """A process that has heard nothing."""
    return Senses(peer_silent_seconds=15.0, outage_memory_seconds=60.0)


def said(**changes) -> ProgressAnswer:
    """An answer."""
    record = Progress(run=KEY.name, attempt=0, phase="training", step=5, step_age_seconds=1.0)
    return ProgressAnswer(asdict(record) | changes)


def test_an_answer_is_a_record_with_the_time_of_its_arrival(senses):
    """And its agent is heard."""
    facts = senses.note_answer(KEY, 0, 0, said(), NOW)
    assert (facts.record.step, facts.received_at, facts.agents[0].heard_at) == (5, NOW, NOW)
    assert senses.progress(KEY, 0) == facts


def test_another_attempt_starts_deaf(senses):
    """Answers of the old attempt say nothing about the new one, and late ones do not count."""
    senses.note_answer(KEY, 0, 0, said(), NOW)
    assert senses.progress(KEY, 1).record is None
    facts = senses.note_answer(KEY, 1, 0, said(attempt=0), NOW)
    assert (facts.record, facts.agents[0].blind_because) == (None, "bad-answer")


@pytest.mark.parametrize("schema", [1, 7], ids=["a schema that we know", "another"])
def test_what_another_run_answers_is_no_answer(senses, schema):
    """A dead node's pod is listed for longer than it has its address; the next one there mostly is of attempt 0 too."""
    senses.note_answer(KEY, 0, 0, ProgressAnswer(None, "timeout"), ago(10))
    facts = senses.note_answer(KEY, 0, 0, said(run="b", step=90, schema=schema, heard={"1": 0.5}), NOW)
    assert (facts.record, facts.unknown_schema, set(facts.agents)) == (None, None, {0})
    assert (facts.agents[0].silent_since, facts.agents[0].blind_because) == (ago(10), "bad-answer")


def test_silence_begins_at_the_first_unanswered_call(senses):
    """And ends with an answer."""
    senses.note_answer(KEY, 0, 0, said(), ago(30))
    senses.note_answer(KEY, 0, 0, ProgressAnswer(None, "timeout"), ago(20))
    facts = senses.note_answer(KEY, 0, 0, ProgressAnswer(None, "refused"), ago(10))
    assert (facts.agents[0].heard_at, facts.agents[0].silent_since) == (ago(30), ago(20))
    assert facts.agents[0].blind_because == "refused"
    assert senses.note_answer(KEY, 0, 0, said(), NOW).agents[0].silent_since is None


def test_worker_0_speaks_for_its_peers(senses):
    """Heard lately: heard; not for 15 s: silent; odd entries are ignored."""
    facts = senses.note_answer(KEY, 0, 0, said(heard={"1": 2.0, "2": 16.0, "0": 99.0, "x": 1.0}), NOW)
    assert facts.agents[1].heard_at == ago(2)
    assert facts.agents[2].silent_since == NOW
    assert set(facts.agents) == {0, 1, 2}


def test_what_a_peer_heard_before_does_not_end_a_silence(senses):
    """Worker 0 does not answer; worker 1 has heard it 3 s ago, and later once more."""
    senses.note_answer(KEY, 0, 0, ProgressAnswer(None, "timeout"), ago(10))
    facts = senses.note_answer(KEY, 0, 1, said(heard={"0": 3.0}), ago(9))
    assert (facts.agents[0].heard_at, facts.agents[0].silent_since) == (ago(12), ago(10))
    facts = senses.note_answer(KEY, 0, 1, said(heard={"0": 3.0}), NOW)
    assert (facts.agents[0].heard_at, facts.agents[0].silent_since) == (ago(3), None)


def test_a_peer_that_answers_itself_is_not_silent_because_worker_0_does_not_hear_it(senses):
    """A direct answer is better evidence."""
    senses.note_answer(KEY, 0, 2, said(), ago(3))
    facts = senses.note_answer(KEY, 0, 0, said(heard={"2": 100.0}), NOW)
    assert facts.agents[2].silent_since is None


@pytest.mark.parametrize(("age", "ranks"), [(2.5, {1}), (0.5, set())], ids=["older", "newer"])
def test_what_a_peer_heard_before_replaces_no_newer_answer(senses, age, ranks):
    """A spare has just said that it took a seat; worker 0 passes on what it said before, or what it says since."""
    senses.note_answer(KEY, 0, 2, said(workers=[{"pod_index": 2, "rank": 1}]), ago(1))
    facts = senses.note_answer(KEY, 0, 0, said(heard={"2": age}, workers=[{"pod_index": 0, "rank": 0}]), NOW)
    assert facts.agents[2].ranks == ranks
    assert facts.agents[2].heard_at == ago(min(age, 1))


@pytest.mark.parametrize(
    ("seconds_later", "generation", "step", "kept"),
    [(0, 0, 8, 9), (0, 0, 10, 10), (0, 1, 2, 2), (5, 0, 8, 8)],
    ids=["a lagging peer", "ahead", "restarted in place", "next round"],
)
def test_the_most_advanced_answer_of_a_round_speaks_for_the_run(senses, seconds_later, generation, step, kept):
    """A later round replaces it, even with an earlier step."""
    senses.note_answer(KEY, 0, 0, said(step=9), NOW)
    later = NOW + timedelta(seconds=seconds_later)
    assert senses.note_answer(KEY, 0, 1, said(step=step, generation=generation), later).record.step == kept


@pytest.mark.parametrize(
    ("answer", "unknown", "blind"),
    [
        (said(schema=7), 7, ""),
        (said(schema="x"), -1, ""),
        (said(step="many"), None, "bad-answer"),
        (said(heard=[]), None, "bad-answer"),
        (said(later_field=1), None, ""),
    ],
    ids=["newer schema", "odd schema", "odd type", "odd peers", "unknown field"],
)
def test_odd_answers(senses, answer, unknown, blind):
    """A schema that we do not know is named; impossible types are no answer; unknown fields are ignored."""
    facts = senses.note_answer(KEY, 0, 0, answer, NOW)
    assert (facts.unknown_schema, facts.agents[0].blind_because) == (unknown, blind)
    assert (facts.record is None) == (unknown is not None or bool(blind))


def test_after_an_outage_facts_are_stale_for_a_while(senses):
    """Not without an outage, and not for longer than the memory."""
    senses.note_api(ago(100), is_reachable=True)
    assert senses.reachable_since(NOW) is None
    senses.note_api(ago(90), is_reachable=False)
    senses.note_api(ago(80), is_reachable=False)
    senses.note_api(ago(30), is_reachable=True)
    senses.note_api(ago(20), is_reachable=True)
    assert senses.reachable_since(NOW) == ago(30)
    assert senses.reachable_since(NOW + timedelta(seconds=31)) is None


def test_refusals_and_records_go_with_their_run(senses):
    """Nothing is kept of a run that is gone."""
    senses.note_refusal(KEY, Refusal(0, "quota", NOW))
    senses.note_answer(KEY, 0, 0, said(), NOW)
    assert senses.refusal(KEY).message == "quota"
    senses.forget(KEY)
    assert senses.refusal(KEY) is None
    assert senses.progress(KEY, 0).record is None
