"""The ledger of wall seconds closes exactly."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from trainrun_api.v1alpha1 import GoodputStatus
from trainrun_operator.core.goodput import CLASSES, booked, settled
from trainrun_operator.core.times import from_text, to_text

from tests.operator.builders import CREATED, make_attempt, make_status

SPANS = st.lists(
    st.tuples(st.sampled_from(sorted(CLASSES)), st.integers(0, 5_000_000), st.booleans()), min_size=1, max_size=30
)


def milliseconds(ledger: GoodputStatus) -> int:
    """All booked time."""
    return round(sum(ledger.seconds_by_class.values()) * 1000)


@given(SPANS)
def test_classes_add_up_to_the_time_since_creation(spans):
    """To the millisecond, whatever the order of classes and writes; settling moves and never adds."""
    ledger, now = GoodputStatus(), CREATED
    for name, length, is_forced in spans:
        now += timedelta(milliseconds=length)
        ledger = booked(ledger, CREATED, now, name, is_forced=is_forced)
        attempt = make_attempt(first_step_at=to_text(CREATED + timedelta(milliseconds=length // 2)))
        ledger = settled(ledger, attempt, make_status(attempt), None, now)
        until = from_text(ledger.accounted_until)
        assert until is not None
        assert milliseconds(ledger) == (until - CREATED) // timedelta(milliseconds=1)
        assert all(v >= 0 for v in ledger.seconds_by_class.values())
        assert set(ledger.seconds_by_class) <= {*CLASSES}
    final = booked(ledger, CREATED, now, "finished", is_forced=True)
    assert milliseconds(final) == (now - CREATED) // timedelta(milliseconds=1)


def test_an_open_span_of_the_same_class_is_written_once_a_minute():
    """A healthy run is not written at every pass."""
    ledger = booked(GoodputStatus(), CREATED, CREATED, "training", is_forced=False)
    early = booked(ledger, CREATED, CREATED + timedelta(seconds=59), "training", is_forced=False)
    late = booked(ledger, CREATED, CREATED + timedelta(seconds=60), "training", is_forced=False)
    assert early == ledger
    assert late.seconds_by_class["training"] == 60


def test_finished_time_is_not_booked():
    """The ledger closes with the run."""
    done = booked(
        GoodputStatus(current_class="training"), CREATED, CREATED + timedelta(seconds=5), "finished", is_forced=True
    )
    assert booked(done, CREATED, CREATED + timedelta(seconds=500), "finished", is_forced=True) == done


def test_a_failure_moves_what_it_destroyed():
    """100 s of training: checkpoint at 60, last step at 90, verdict at 100."""
    at = lambda s: CREATED + timedelta(seconds=s)  # noqa: E731
    ledger = booked(
        GoodputStatus(current_class="training", accounted_until=to_text(at(0))),
        CREATED,
        at(100),
        "recovering",
        is_forced=True,
    )
    attempt = make_attempt(first_step_at=to_text(at(0)))
    status = make_status(attempt, checkpoint={"step": 6, "committed_at": to_text(at(60))})
    assert settled(ledger, attempt, status, at(90), at(100)).seconds_by_class == {
        "training": 60,
        "lost": 30,
        "detecting": 10,
    }


def test_without_a_checkpoint_everything_since_the_first_step_is_lost():
    """And without a first step nothing is."""
    at = lambda s: CREATED + timedelta(seconds=s)  # noqa: E731
    ledger = GoodputStatus(seconds_by_class={"training": 50.0})
    attempt = make_attempt(first_step_at=to_text(at(0)))
    lost = settled(ledger, attempt, make_status(attempt), at(50), at(50))
    assert lost.seconds_by_class == {"training": 0, "lost": 50}
    assert lost.ettr == 0
    unstarted = make_attempt(first_step_at=None)
    assert settled(ledger, unstarted, make_status(unstarted), None, at(50)) == ledger


def test_waiting_and_suspension_do_not_count_against_ettr():
    """Time that the run could not use."""
    ledger = GoodputStatus(
        seconds_by_class={"waitingCapacity": 900.0, "suspended": 900.0, "starting": 25.0},
        current_class="training",
        accounted_until=to_text(CREATED),
    )
    assert booked(ledger, CREATED, CREATED + timedelta(seconds=75), "training", is_forced=True).ettr == 0.75
