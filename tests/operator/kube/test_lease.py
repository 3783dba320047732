"""One leads; another one leads when the first has gone, has fallen silent, or gives back."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import pytest
from trainrun_operator.cluster import Key, Kind, Object
from trainrun_operator.errors import AlreadyExists, ClusterError, Conflict, Refused, Unavailable
from trainrun_operator.kube.client import KubeClient
from trainrun_operator.kube.lease import DURATION_SECONDS, RENEW_DEADLINE_SECONDS, RETRY_SECONDS, Election, lease_name
from trainrun_operator.testing import FakeClock

from tests.operator.kube.server import serving, status
from tests.operator.kube.test_client import connected

KEY = Key("system", "trainrun-operator")


class Shelf(KubeClient):
    """An API server that knows one lease."""

    def __init__(self) -> None:
        self.lease: Object | None = None
        self.version = 0
        self.error: ClusterError | None = None
        """What every call meets."""
        self.before_write: Callable[[], None] = lambda: None

    def get(self, kind: Kind | str, key: Key) -> Object | None:
        assert (kind, key) == ("Lease", KEY)
        if self.error is not None:
            raise self.error
        return copy.deepcopy(self.lease)

    def create(self, kind: Kind | str, namespace: str, obj: Object) -> Object:
        self.before_write()
        if self.lease is not None:
            raise AlreadyExists("create leases")
        return self._store(obj)

    def replace(self, kind: Kind | str, obj: Object, *, subresource: str = "") -> Object:
        self.before_write()
        if self.error is not None:
            raise self.error
        assert self.lease is not None
        if obj["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict("update leases")
        return self._store(obj)

    def _store(self, obj: Object) -> Object:
        self.version += 1
        self.lease = copy.deepcopy({**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}})
        return copy.deepcopy(self.lease)

    def spec(self) -> Object:
        assert self.lease is not None
        spec: Object = self.lease["spec"]
        return spec


class Machine:
    """A candidate whose waits move its clock; `at` says what happens when it has waited so long."""

    def __init__(self, shelf: Shelf, name: str, clock: FakeClock) -> None:
        self.clock = clock
        self.at: dict[float, Callable[[], None]] = {}
        self.ends_at = 1000.0
        self.election = Election(shelf, clock, KEY, name, wait=self.wait)

    def wait(self, seconds: float) -> bool:
        self.clock.advance(seconds)
        for moment in [m for m in self.at if m <= self.clock.monotonic()]:
            self.at.pop(moment)()
        return self.clock.monotonic() >= self.ends_at


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def first(shelf: Shelf, clock: FakeClock) -> Machine:
    """The one that leads."""
    machine = Machine(shelf, "first", clock)
    machine.election.acquire()
    return machine


def test_free_lease_is_taken_at_once(shelf: Shelf, clock: FakeClock, first: Machine) -> None:
    """The record is the one that client-go reads."""
    assert shelf.spec() == {
        "holderIdentity": "first", "leaseDurationSeconds": 15, "leaseTransitions": 0,
        "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": "2026-01-01T00:00:00.000000Z",
    }  # fmt: skip
    assert clock.monotonic() == 0


def test_renewed_lease_is_never_taken(shelf: Shelf, clock: FakeClock, first: Machine) -> None:
    """However long the standby waits; it takes over one duration after the last renewal that it saw."""
    second = Machine(shelf, "second", clock)
    first_renews = first.election._try
    for moment in range(2, 100, 2):
        second.at[moment] = lambda: assert_true(first_renews())
    second.election.acquire()
    assert 98 + DURATION_SECONDS < clock.monotonic() <= 98 + DURATION_SECONDS + 2 * RETRY_SECONDS
    assert shelf.spec()["holderIdentity"] == "second"
    assert shelf.spec()["leaseTransitions"] == 1


def assert_true(held: bool) -> None:
    assert held


@pytest.mark.parametrize(
    "renewed", ["1970-01-01T00:00:00.000000Z", "2100-01-01T00:00:00.000000Z"], ids=["past", "future"]
)
def test_holders_clock_means_nothing(shelf: Shelf, clock: FakeClock, first: Machine, renewed: str) -> None:
    """Only how long we have seen the record unchanged, and for how long its holder had promised to be heard from."""
    shelf.spec()["renewTime"] = renewed
    shelf.spec()["leaseDurationSeconds"] = 40
    Machine(shelf, "second", clock).election.acquire()
    assert 40 < clock.monotonic() <= 40 + RETRY_SECONDS


def test_of_two_that_want_it_one_gets_it(shelf: Shelf, clock: FakeClock) -> None:
    """Both saw it free; the resourceVersion decides, and the loser stands by."""
    fast, slow = Machine(shelf, "fast", clock), Machine(shelf, "slow", clock)
    shelf._store({"metadata": {"namespace": "system", "name": "trainrun-operator"}, "spec": {"holderIdentity": ""}})

    def overtake() -> None:
        shelf.before_write = lambda: None
        fast.election.acquire()

    shelf.before_write = overtake
    assert not slow.election._try()
    assert not slow.election._try()
    assert shelf.spec()["holderIdentity"] == "fast"


def test_holder_renews_until_it_is_asked_to_stop(shelf: Shelf, first: Machine) -> None:
    """Its record keeps the time of the take-over."""
    first.ends_at = 60
    first.election.hold()
    assert shelf.spec()["acquireTime"] == "2026-01-01T00:00:00.000000Z"
    assert shelf.spec()["renewTime"] == "2026-01-01T00:00:58.000000Z"
    assert shelf.spec()["leaseTransitions"] == 0


@pytest.mark.parametrize(
    "error", [Unavailable("no answer"), Refused("leases is forbidden")], ids=["outage", "right-taken-away"]
)
def test_outage_longer_than_the_deadline_loses_the_lease(
    shelf: Shelf, clock: FakeClock, first: Machine, error: ClusterError
) -> None:
    """Before any other can take it."""
    shelf.error = error
    first.election.hold()
    assert RENEW_DEADLINE_SECONDS < clock.monotonic() < DURATION_SECONDS


def test_shorter_outage_loses_nothing(shelf: Shelf, first: Machine) -> None:
    """An API server that restarts."""

    def heal() -> None:
        shelf.error = None

    shelf.error = Unavailable("no answer")
    first.at[8] = heal
    first.ends_at = 30
    first.election.hold()
    assert shelf.spec()["renewTime"] == "2026-01-01T00:00:28.000000Z"


def test_lease_of_another_holder_is_lost_at_once(shelf: Shelf, clock: FakeClock, first: Machine) -> None:
    """As for a process that was stopped for a while: it does not take the lease back."""

    def usurp() -> None:
        shelf.spec()["holderIdentity"] = "second"

    first.at[4] = usurp
    first.election.hold()
    assert clock.monotonic() == 4
    assert shelf.spec()["holderIdentity"] == "second"


def test_answer_that_comes_after_the_deadline_renews_nothing(shelf: Shelf, clock: FakeClock, first: Machine) -> None:
    """The read hung: the write that would follow might come after another's take-over."""
    before = shelf.version
    clock.advance(RENEW_DEADLINE_SECONDS + 1)
    assert not first.election._try(deadline=RENEW_DEADLINE_SECONDS)
    assert shelf.version == before


def test_released_lease_is_free_at_once(shelf: Shelf, clock: FakeClock, first: Machine) -> None:
    """A rolling update costs no 15 s."""
    first.election.release()
    assert shelf.spec()["holderIdentity"] == ""
    Machine(shelf, "second", clock).election.acquire()
    assert clock.monotonic() == 0


@pytest.mark.parametrize("error", [None, Unavailable("no answer")], ids=["another-one-leads", "outage"])
def test_release_touches_no_other_and_never_raises(
    shelf: Shelf, clock: FakeClock, first: Machine, error: ClusterError | None
) -> None:
    """It comes last, whatever happened before."""
    second = Machine(shelf, "second", clock)
    shelf.error = error
    second.election.release()
    assert shelf.spec()["holderIdentity"] == "first"


def test_missing_right_is_said_and_not_waited_for(shelf: Shelf, clock: FakeClock) -> None:
    """A standby that could never lead would look well for ever."""
    shelf.error = Refused("leases.coordination.k8s.io is forbidden")
    with pytest.raises(Refused, match="forbidden"):
        Machine(shelf, "first", clock).election.acquire()


def test_lost_lease_is_told(shelf: Shelf, first: Machine) -> None:
    """From the renewing thread."""
    lost = threading.Event()
    shelf.error = Unavailable("no answer")
    first.election.start(lost.set)
    assert lost.wait(60)
    first.election.release()


def test_stop_is_no_loss(shelf: Shelf, first: Machine) -> None:
    """A process that was asked to stop ends well."""
    lost = threading.Event()
    first.ends_at = 0
    first.election._stopping.set()
    first.election.start(lost.set)
    first.election.release()
    assert not lost.is_set()
    assert shelf.spec()["holderIdentity"] == ""


def test_lease_lies_in_the_operators_namespace() -> None:
    """As the API server serves it, and under a name of its own for each namespace that is served."""
    with serving(status(404, "NotFound"), (201, {"metadata": {}, "spec": {"holderIdentity": "a"}})) as script:
        Election(connected(script.port), FakeClock(), Key("system", lease_name("")), "a").acquire()
    path = "/apis/coordination.k8s.io/v1/namespaces/system/leases"
    assert [(r.method, r.path) for r in script.requests] == [("GET", f"{path}/trainrun-operator"), ("POST", path)]
    assert lease_name("team-a") == "trainrun-operator-team-a"
