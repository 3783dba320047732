"""Who is asked when, and which answers are news."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from trainrun_operator.cluster import Key, ProgressAnswer
from trainrun_operator.core.observed import REFUSED
from trainrun_operator.errors import Unavailable
from trainrun_operator.poller import Poller
from trainrun_operator.senses import Senses
from trainrun_operator.settings import Settings
from trainrun_operator.testing import FakeClock, FakeCluster

from tests.operator.asked import KEY, WATCH, Stage, record


@pytest.fixture
def stage() -> Stage:
    """The stage."""
    return Stage()


def test_worker_0_is_asked_for_the_whole_run(stage):
    """One call; nothing new, nobody enqueued."""
    assert stage.poll() == []
    assert stage.asked == ["a-a0-0"]


def test_peers_are_asked_while_worker_0_is_silent(stage):
    """The first that answers speaks for the run."""
    stage.answers[0] = ProgressAnswer(None, "timeout")
    assert stage.poll() == [KEY]
    assert stage.asked == ["a-a0-0", "a-a0-1"]


def test_everybody_is_asked_when_something_is_suspect(stage):
    """Each silence is evidence of its own."""
    stage.poll(replace(WATCH, ask_all=True, heard_indices=frozenset({0, 1, 2})))
    assert stage.asked == ["a-a0-0", "a-a0-1", "a-a0-2"]


def test_peers_that_worker_0_has_just_heard_need_not_be_asked(stage):
    """Of eight pods with one that is silent two are asked."""
    stage.answers[0] = record(heard={"1": 2.5, "2": 1.0})
    stage.poll(replace(WATCH, ask_all=True, heard_indices=frozenset({0, 1, 2})))
    assert stage.asked == ["a-a0-0", "a-a0-1"]


def test_what_worker_0_knows_is_told_before_the_silent_ones_are_waited_for(stage):
    """It has not heard a peer: the pass may begin while that one is asked in vain."""
    stage.answers[0] = record(heard={"1": 16.0, "2": 3.0})
    told_at = []
    stage.poller._enqueue = lambda key: told_at.append(list(stage.asked))
    stage.poller.poll(KEY, replace(WATCH, is_suspect=True, ask_all=True, heard_indices=frozenset({0, 1, 2})))
    assert told_at[0] == ["a-a0-0"]
    assert len(stage.asked) == 3


def test_a_silence_is_told_before_the_others_are_asked(stage):
    """It may be all that a verdict waits for."""
    stage.answers[1] = ProgressAnswer(None, "timeout")
    told_at = []
    stage.poller._enqueue = lambda key: told_at.append(list(stage.asked))
    stage.poller.poll(KEY, replace(WATCH, is_suspect=True, ask_all=True, heard_indices=frozenset({0})))
    assert told_at[0] == ["a-a0-0", "a-a0-1"]
    assert len(stage.asked) == 3


def test_what_has_been_told_is_told_again_only_if_more_is_heard(stage):
    """A pass in vain, at once, would take the turn of another run that is hit."""
    stage.answers[0] = record(heard={"1": 16.0, "2": 3.0})
    stage.answers[1] = ProgressAnswer(None, "timeout")
    suspect = replace(WATCH, is_suspect=True, ask_all=True, heard_indices=frozenset({0, 1, 2}))
    stage.poller.poll(KEY, suspect)
    assert len(stage.asked) == 3
    assert stage.news == [KEY]
    stage.clock.advance(5)
    stage.answers[2] = ProgressAnswer(None, "timeout")
    stage.poller.poll(KEY, suspect)
    assert stage.news == [KEY] * 3


def test_a_peer_that_refused_and_then_says_nothing_is_news_again(stage):
    """Refusing, its node is there; now it may be lost."""
    stage.answers[0] = record(heard={"2": 1.0})
    suspect = replace(WATCH, is_suspect=True, ask_all=True, heard_indices=frozenset({0, 2}))
    stage.answers[1] = ProgressAnswer(None, REFUSED)
    stage.poller.poll(KEY, suspect)
    stage.news.clear()
    stage.answers[1] = ProgressAnswer(None, "timeout")
    stage.poller.poll(KEY, suspect)
    assert stage.news == [KEY] * 2


def test_a_suspicion_during_a_question_is_asked_about_right_after_it(stage):
    """The question under way was for worker 0 alone; five seconds more would be lost."""
    gate, reached = stage.hold_answers()
    stage.poller.watch(KEY, WATCH)
    with ThreadPoolExecutor(2) as pool:
        stage.poller.run_due(pool)
        assert reached.wait(20)
        stage.poller.watch(KEY, replace(WATCH, is_suspect=True, ask_all=True))
        stage.poller.run_due(pool)
        gate.set()
    assert stage.asked == ["a-a0-0"]
    stage.clock.advance(0.25)
    stage.poller.run_due()
    assert stage.asked[1:] == ["a-a0-0", "a-a0-1", "a-a0-2"]


def test_the_longest_unheard_are_asked_first_and_not_all_of_a_large_run(stage):
    """Sixteen a round; worker 0 always."""
    for index in range(3, 40):
        stage._add_pod(0, index)
    stage.answers[0] = record(heard={str(i): 3.0 for i in range(1, 40) if i not in (7, 30)})
    stage.answers[7] = ProgressAnswer(None, "timeout")
    everybody = replace(WATCH, ask_all=True)
    stage.poll(everybody)
    stage.asked.clear()
    stage.poll(everybody)
    assert len(stage.asked) == 16
    assert stage.asked[:3] == ["a-a0-0", "a-a0-7", "a-a0-30"]


def test_silent_agents_of_one_run_do_not_delay_another(stage):
    """With threads: a run that is still being asked is not asked again, others are."""
    gate, reached = stage.hold_answers()
    stage.poller.watch(KEY, WATCH)
    with ThreadPoolExecutor(2) as pool:
        stage.poller.run_due(pool)
        assert reached.wait(20)
        stage.clock.advance(60)
        stage.poller.run_due(pool)
        assert stage.asked == ["a-a0-0"]
        gate.set()


def test_a_bug_in_one_poll_is_told(stage):
    """Nobody looks into a thread of the pool."""
    stage.cluster.before = lambda call: (_ for _ in ()).throw(KeyError("oops"))
    stage.poller.watch(KEY, WATCH)
    with ThreadPoolExecutor(1) as pool:
        stage.poller.run_due(pool)
    assert [(key, type(error)) for key, error in stage.errors] == [(KEY, KeyError)]


@pytest.mark.parametrize(
    ("answer", "watch", "is_news"),
    [
        (record(), WATCH, False),
        (record(step_age_seconds=20.0), WATCH, False),
        (record(step_age_seconds=20.1), WATCH, True),
        (record(step_age_seconds=99.0), replace(WATCH, step_age_limit_seconds=None), False),
        (record(phase="evaluating"), WATCH, True),
        (record(inplace_restarts=1), WATCH, True),
        (record(step_age_seconds=None), replace(WATCH, first_step_missing=True), False),
        (record(), replace(WATCH, first_step_missing=True), True),
        (record(schema=9), WATCH, True),
        (record(heard={"1": 1.0}), WATCH, True),
        (record(heard={"1": 99.0}), WATCH, True),
        (record(heard={"1": 99.0}), replace(WATCH, silent_indices=frozenset({1})), False),
    ],
    ids=[
        "healthy", "at the limit", "over the limit", "no limit", "phase", "in-place restart", "no step yet",
        "first step", "unknown schema", "another agent heard", "another agent silent", "known silence",
    ],
)  # fmt: skip
def test_an_answer_is_news_when_it_crosses_a_threshold(stage, answer, watch, is_news):
    """The last decision's; else nobody is woken."""
    stage.answers[0] = answer
    assert stage.poll(watch) == ([KEY] if is_news else [])


def test_all_agents_silent_is_news_once(stage):
    """Then it is known."""
    for index in range(3):
        stage.answers[index] = ProgressAnswer(None, "refused")
    known = replace(WATCH, heard_indices=frozenset())
    assert stage.poll(known) == [KEY]
    assert stage.poll(replace(known, silent_indices=frozenset({0, 1, 2}))) == []


@pytest.mark.parametrize(("suspect", "seconds"), [(False, 30), (True, 5)], ids=["healthy", "suspect"])
def test_a_watch_is_asked_at_once_and_then_at_its_interval(stage, suspect, seconds):
    """Every 30 s when healthy, every 5 s when anything is suspect."""
    stage.poller.watch(KEY, replace(WATCH, is_suspect=suspect))
    stage.poller.run_due()
    assert len(stage.asked) == 1
    assert stage.poller.next_due_at() == seconds
    stage.clock.advance(seconds - 1)
    stage.poller.run_due()
    assert len(stage.asked) == 1
    stage.clock.advance(1)
    stage.poller.run_due()
    assert len(stage.asked) == 2


def test_suspicion_asks_at_once_and_calm_does_not_put_it_off(stage):
    """A pass in between never delays the next call."""
    stage.poller.watch(KEY, WATCH)
    stage.poller.run_due()
    stage.clock.advance(10)
    stage.poller.watch(KEY, WATCH)
    assert stage.poller.next_due_at() == 30
    stage.poller.watch(KEY, replace(WATCH, is_suspect=True))
    assert stage.poller.next_due_at() == 10
    stage.poller.watch(KEY, replace(WATCH, attempt=1))
    assert stage.poller.next_due_at() == 10
    stage.poller.watch(KEY, None)
    assert stage.poller.next_due_at() is None


def test_a_healthy_run_gets_a_pass_a_minute(stage):
    """So that status.progress is fresh."""
    stage.poller.watch(KEY, WATCH)
    stage.poller.run_due()
    assert stage.news == []
    stage.clock.advance(60)
    stage.poller.run_due()
    assert stage.news == [KEY]


def test_an_unreachable_api_is_not_silence_of_agents(stage):
    """Nothing is noted; the next call tries again."""
    stage.poller.watch(KEY, WATCH)

    def fail(call: str) -> None:
        raise Unavailable("x")

    stage.cluster.before = fail
    stage.poller.run_due()
    assert (stage.asked, stage.news) == ([], [])
    assert stage.senses.progress(KEY, 0).agents == {}


def test_pods_that_do_not_run_are_not_asked(stage):
    """A pending pod has no agent."""
    for index in range(3):
        stage.cluster.store.remove("Pod", Key("default", f"a-a0-{index}"))
    assert stage.poll() == []
    assert stage.asked == []


def test_a_wait_that_begins_after_the_interruption_ends_at_once():
    """Or a stop would last as long as the longest wait."""
    poller = Poller(
        FakeCluster(FakeClock()), FakeClock(), Settings(), Senses(15.0, 60.0), enqueue=print, on_error=print
    )
    poller.interrupt()
    poller.wait(3600.0)


def test_healthy_runs_are_asked_together(stage):
    """At full seconds; a suspect one is asked at its own time, and whoever begins to be watched at once."""
    stage.clock.advance(0.3)
    stage.poller.watch(KEY, WATCH)
    assert stage.poller.next_due_at() == stage.clock.monotonic()
    stage.poller.run_due()
    assert stage.poller.next_due_at() == 31.0
    stage.poller.watch(KEY, replace(WATCH, is_suspect=True))
    stage.poller.run_due()
    assert stage.poller.next_due_at() == pytest.approx(5.3)
