"""A hostile network and an API server that errs or is away change nothing in the outcome."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.controlplane.pods import said
from tests.controlplane.processes import KeptAlive
from tests.controlplane.proxy import Call, Fault, OnCall, Proxy
from tests.controlplane.stage import Stage
from tests.controlplane.stories import Story, fails_and_goes_on, leaves_a_marked_node, loses_a_node_object
from tests.controlplane.waiting import wait_for

OUTAGE_SECONDS = 60.0
REFUSED_CALLS = 8
CUT_SECONDS = 1.0


@pytest.fixture
def proxy(stage: Stage) -> Iterator[Proxy]:
    """Between an operator and the API server."""
    with Proxy(stage.plane) as proxy:
        yield proxy


def at_first(fault: Fault, is_meant: Callable[[Call], bool], times: int = 1) -> OnCall:
    """Each thing that is asked goes wrong the first time, or times."""
    seen: Counter[str] = Counter()

    def on_call(call: Call) -> Fault | None:
        seen[str(call)] += 1
        return fault if is_meant(call) and seen[str(call)] <= times else None

    return on_call


def is_about_objects(call: Call) -> bool:
    """A read or write of what the operator works on, as against kopf's look at what the API server serves."""
    return not call.is_watch and ("/namespaces/" in call.path or "/nodes" in call.path)


MEANT: dict[int | None, Callable[[Call], bool]] = {
    409: lambda call: call.is_write,
    410: lambda call: "/namespaces/" in call.path and call.method == "GET",
    429: is_about_objects,
    500: is_about_objects,
    503: lambda call: not call.is_watch,
    504: is_about_objects,
    None: lambda call: not call.is_watch,
}
"""Calls that an API server may answer so; None: the connection breaks."""


@pytest.mark.parametrize("code", MEANT)
def test_errors_of_the_api_server_change_nothing(stage: Stage, proxy: Proxy, code: int | None) -> None:
    """Each thing that is asked fails at first."""
    proxy.on_call = at_first(Fault("before", code), MEANT[code])
    with stage.operator(through=proxy):
        fails_and_goes_on(stage)


def test_a_write_whose_answer_is_lost_is_not_done_twice(stage: Stage, proxy: Proxy) -> None:
    """The API server has carried it out, and the operator never hears."""
    proxy.on_call = at_first(Fault("after"), lambda call: call.is_write, times=2)
    with stage.operator(through=proxy):
        fails_and_goes_on(stage)
    created = [call for call in proxy.calls if call.method == "POST" and call.path.endswith("/pytorchjobs")]
    assert [call.code for call in created if call.code == 201] == [201, 201]


@contextmanager
def cutting(proxy: Proxy) -> Iterator[None]:
    """Every watch that is open is cut each second."""
    stop = threading.Event()

    def cut() -> None:
        while not stop.wait(CUT_SECONDS):
            proxy.cut_watches()

    thread = threading.Thread(target=cut, name="cutting")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("code", [410, None])
@pytest.mark.parametrize("story", [fails_and_goes_on, leaves_a_marked_node, loses_a_node_object])
def test_cut_watches_lose_nothing(stage: Stage, proxy: Proxy, code: int | None, story: Story) -> None:
    """They break again and again, and every second one cannot begin: its version is too old, or nobody answers.

    A 410 is more than kopf bears: it may hang, then the operator ends, and the kubelet starts it again.
    """
    begun = itertools.count()
    proxy.on_call = lambda call: Fault("before", code) if call.is_watch and next(begun) % 2 else None
    with KeptAlive(stage.new_operator("operator", through=proxy).process), cutting(proxy):
        story(stage)


def test_what_happens_while_no_watch_is_open_is_found(stage: Stage, proxy: Proxy) -> None:
    """A pod that failed and went, unseen: the list that a new watch begins with corrects the cache."""
    is_closed = False

    def closed(call: Call) -> Fault | None:
        return Fault() if is_closed and call.is_watch else None

    proxy.on_call = closed
    with stage.operator(through=proxy):
        stage.create_run("a")
        first = stage.wait_running("a", 0)[0]
        stage.wait_reason("a", "Running")
        wait_for(lambda: len(proxy.watched()) >= 4, "runs, jobs, pods and nodes to be watched", seen=proxy.watched)
        is_closed = True
        assert proxy.cut_watches() >= 4
        stage.trainers.end(first, 30, said(first, 30, "DeviceSuspect", step=7))
        stage.api.delete(stage.pod_path(first), gracePeriodSeconds=0)
        is_closed = False
        stage.wait_running("a", 1)
        wait_for(lambda: len(stage.jobs("a")) == 1, "one job to be left")


def test_an_outage_of_the_api_server_changes_nothing(stage: Stage) -> None:
    """It accepts connections and says nothing for a minute, to anybody; the run trains on in the same attempt."""
    with stage.operator() as operator:
        stage.create_run("a")
        pods = stage.wait_running("a", 0)
        stage.wait_reason("a", "Running")
        os.kill(stage.plane.apiserver.pid, signal.SIGSTOP)
        try:
            time.sleep(OUTAGE_SECONDS)
        finally:
            os.kill(stage.plane.apiserver.pid, signal.SIGCONT)
        wait_for(lambda: operator.get("/healthz") == "ok\n", "the operator to be well")
        stage.trainers.finish(pods)
        stage.wait_status("a", phase="Succeeded")
        assert stage.attempts("a") == [(0, "Done")]


def test_an_outage_during_a_recovery_delays_it_only(stage: Stage, proxy: Proxy) -> None:
    """It begins when the new attempt is on record and its job is not made yet."""
    refused: list[Call] = []

    def away(call: Call) -> Fault | None:
        begins = call.method == "POST" and call.path.endswith("/pytorchjobs") and stage.attempts("a")[-1][0] == 1
        if (begins or refused) and len(refused) < REFUSED_CALLS:
            refused.append(call)
            return Fault()
        return None

    proxy.on_call = away
    with stage.operator(through=proxy):
        fails_and_goes_on(stage)
    assert len(refused) == REFUSED_CALLS
