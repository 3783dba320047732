"""Whatever the API server answers becomes one of our errors, and every write carries its precondition."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client
from trainrun_api.contract import Label
from trainrun_operator.clock import SystemClock
from trainrun_operator.cluster import Key
from trainrun_operator.errors import AlreadyExists, ClusterError, Conflict, NotFound, Refused, Unavailable
from trainrun_operator.kube import events as kube_events
from trainrun_operator.kube import kube_cluster
from trainrun_operator.kube.client import KubeClient
from trainrun_operator.kube.events import EventRecorder
from trainrun_operator.kube.kube_cluster import KubeCluster, Place
from trainrun_operator.testing import FakeClock

from tests.operator.kube.server import Answer, Request, Script, serving, status

PATIENCE_SECONDS = 20.0

KEY = Key("ns", "a")
RUN = {
    "apiVersion": "trainrun.dev/v1alpha1", "kind": "TrainingRun",
    "metadata": {"name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "7"}, "status": {},
}  # fmt: skip


def connected(port: int, calls: list[tuple[str, str, str]] | None = None) -> KubeClient:
    configuration = client.Configuration()
    configuration.host = f"http://127.0.0.1:{port}"
    configuration.retries = False
    observe = (lambda *call: calls.append(call)) if calls is not None else (lambda *call: None)
    return KubeClient(client.ApiClient(configuration), observe)


@pytest.fixture
def closed_port() -> Iterator[int]:
    with serving((200, {})) as script:
        port = script.port
    yield port


SAID = {
    "gone": (status(404, "NotFound"), NotFound),
    "old-version": (status(409, "Conflict"), Conflict),
    "re-created": (
        status(409, "Conflict", "Precondition failed: UID in precondition: u, UID in object meta: "),
        NotFound,
    ),
    "token-expired": (status(401, "Unauthorized"), Unavailable),
    "list-expired": (status(410, "Expired"), Unavailable),
    "too-many": (status(429, "TooManyRequests"), Unavailable),
    "server-error": (status(500, "InternalError"), Unavailable),
    "bad-gateway": ((502, b"<html>no json</html>"), Unavailable),
    "unavailable": (status(503, "ServiceUnavailable"), Unavailable),
    "forbidden": (status(403, "Forbidden", "user x cannot update trainingruns/status"), Refused),
    "invalid": (status(422, "Invalid"), Refused),
    "not-json": ((200, b"<html>a captive portal</html>"), Unavailable),
}


@pytest.mark.parametrize(("answer", "error"), SAID.values(), ids=SAID.keys())
def test_every_answer_has_its_error(answer: Answer, error: type[ClusterError]) -> None:
    """None is retried by the client itself, and none escapes as a library's exception."""
    with serving(answer) as script, pytest.raises(error):
        connected(script.port).replace("TrainingRun", RUN, subresource="status")
    assert len(script.requests) == 1


def test_refusal_carries_the_servers_sentence() -> None:
    """A missing right is said by name."""
    with serving(SAID["forbidden"][0]) as script, pytest.raises(Refused, match="cannot update trainingruns/status"):
        connected(script.port).replace("TrainingRun", RUN, subresource="status")


def test_nobody_listening_is_unavailable(closed_port: int) -> None:
    """As during a restart of the API server; the call is counted without a code."""
    calls: list[tuple[str, str, str]] = []
    with pytest.raises(Unavailable, match="no answer"):
        connected(closed_port, calls).get("TrainingRun", KEY)
    assert calls == [("get", "trainingruns", "none")]


def test_absent_object_is_none() -> None:
    """A live read of what is gone."""
    with serving(status(404, "NotFound")) as script:
        assert connected(script.port).get("TrainingRun", KEY) is None


def test_creating_what_exists_is_told_apart_from_a_conflict() -> None:
    """Both are 409."""
    with serving(status(409, "AlreadyExists")) as script, pytest.raises(AlreadyExists):
        connected(script.port).create("PyTorchJob", "ns", {})


def test_creating_an_unknown_kind_is_refused() -> None:
    """training-operator is not installed: waiting does not help."""
    with (
        serving(status(404, "NotFound", "no such resource")) as script,
        pytest.raises(Refused, match="no such resource"),
    ):
        connected(script.port).create("PyTorchJob", "ns", {})


def test_deletion_carries_uid_and_grace() -> None:
    """A namesake is never deleted; its 409 means that ours is gone."""
    with serving((200, {}), status(409, "Conflict", "the UID in the precondition (u) does not match")) as script:
        kube = connected(script.port)
        kube.delete("Pod", KEY, uid="u", grace_seconds=0)
        with pytest.raises(NotFound):
            kube.delete("Pod", KEY, uid="u", grace_seconds=0)
    body = script.requests[0].body
    assert (body["preconditions"], body["gracePeriodSeconds"]) == ({"uid": "u"}, 0)
    assert script.requests[0].path == "/api/v1/namespaces/ns/pods/a"


def test_lists_are_read_page_by_page() -> None:
    """With the selector on every page."""
    first = {"metadata": {"resourceVersion": "5", "continue": "more"}, "items": [1]}
    with serving((200, first), (200, {"metadata": {"resourceVersion": "5"}, "items": [2]})) as script:
        pages = list(connected(script.port).pages("Pod", "", "trainrun.dev/run"))
    assert [item for page in pages for item in page["items"]] == [1, 2]
    assert all("labelSelector=trainrun.dev%2Frun" in request.path for request in script.requests)
    assert "continue=more" in script.requests[1].path


def recorder(script: Script) -> EventRecorder:
    return EventRecorder(connected(script.port), SystemClock(), "trainrun-operator", "here")


def test_repeated_event_is_not_written_again_within_a_minute() -> None:
    """News is."""
    with serving((201, {})) as script:
        events = recorder(script)
        for message in ("one", "one", "two"):
            events.record(RUN, "Normal", "Running", message)
    assert [request.body["message"] for request in script.requests] == ["one", "two"]


def test_event_that_exists_is_counted() -> None:
    """Another operator wrote it before."""
    stored = {"metadata": {"name": "e", "namespace": "ns", "resourceVersion": "3"}, "count": 4}
    with serving(status(409, "AlreadyExists"), (200, stored), (200, {})) as script:
        recorder(script).record(RUN, "Normal", "Running", "one")
    assert script.requests[-1].method == "PUT"
    assert script.requests[-1].body["count"] == 5


def test_event_that_cannot_be_written_fails_nothing() -> None:
    """Telling is no duty."""
    with serving(status(403, "Forbidden")) as script:
        recorder(script).record(RUN, "Normal", "Running", "one")
    assert len(script.requests) == 1


def test_no_pass_waits_for_its_events(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The API server is slow: telling returns at once, too much is logged, the rest is written at the end."""
    monkeypatch.setattr(kube_events, "WAITING_LIMIT", 2)
    is_asked, may_answer = threading.Event(), threading.Event()

    def wait(request: Request) -> None:
        is_asked.set()
        may_answer.wait(PATIENCE_SECONDS)

    with serving((201, {}), react=wait) as script:
        events = recorder(script)
        events.start()
        events.record(RUN, "Normal", "Running", "one")
        assert is_asked.wait(PATIENCE_SECONDS)
        for message in ("two", "three", "four"):
            events.record(RUN, "Normal", "Running", message)
        may_answer.set()
        events.stop()
    assert [request.body["message"] for request in script.requests] == ["one", "two", "three"]
    assert "2 others wait" in caplog.text


class Pauses(threading.Event):
    """Nobody waits; how long it would have been is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        """At once."""
        self.seconds.append(round(timeout or 0.0, 3))
        return False


def test_many_events_at_once_leave_the_api_server_room() -> None:
    """Twenty, and then ten a second; all are written."""
    with serving((201, {})) as script:
        events = EventRecorder(connected(script.port), FakeClock(), "trainrun-operator", "here")
        events._stopping = pauses = Pauses()
        events.start()
        for number in range(22):
            events.record(RUN, "Normal", "Running", f"number {number}")
        events.stop()
    assert len(script.requests) == 22
    assert [seconds for seconds in pauses.seconds if seconds > 0] == [0.1, 0.2]


def test_an_event_that_brings_out_a_bug_keeps_no_other_back(caplog: pytest.LogCaptureFixture) -> None:
    """It is told with its place."""
    with serving((201, {})) as script:
        events = recorder(script)
        events.start()
        events._waiting.put({"reason": "Broken"})
        events.record(RUN, "Normal", "Running", "one")
        events.stop()
    assert [request.body["message"] for request in script.requests] == ["one"]
    assert "event Broken was not recorded" in caplog.text


def test_node_that_no_watch_has_shown_is_read_before_it_counts_as_gone() -> None:
    """A pod may be seen on a new node before the node itself is."""
    node = {"metadata": {"name": "n", "uid": "1", "resourceVersion": "1"}}
    pod = {
        "metadata": {"name": "p", "namespace": "ns", "uid": "2", "resourceVersion": "1",
                     "labels": {"trainrun.dev/run": "a"}},
        "spec": {"nodeName": "n"},
    }  # fmt: skip
    with serving((200, node)) as script:
        cluster = KubeCluster(connected(script.port), SystemClock(), Place("ns"))
        cluster.cache.put("Pod", pod)
        assert cluster.list_nodes() == []
        cluster.list_pods(KEY)
        assert [n["metadata"]["name"] for n in cluster.list_nodes()] == ["n"]
        cluster.list_pods(KEY)
    assert len(script.requests) == 1


def test_a_node_that_is_gone_is_asked_for_once_per_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dozens of passes look at the pods of a lost node; a pod on a later node of that name is another one."""
    monkeypatch.setattr(kube_cluster, "NODELESS_KEPT", 1)

    def pod(uid: str) -> dict[str, Any]:
        metadata = {"name": uid, "namespace": "ns", "uid": uid, "resourceVersion": "1", "labels": {Label.RUN: "a"}}
        return {"metadata": metadata, "spec": {"nodeName": "n"}}

    with serving(*[status(404, "NotFound")] * 2) as script:
        cluster = KubeCluster(connected(script.port), SystemClock(), Place("ns"))
        cluster.cache.put("Pod", pod("p"))
        for _ in range(3):
            cluster.list_pods(KEY)
        assert len(script.requests) == 1
        cluster.cache.put("Pod", pod("q"))
        cluster.cache.drop("Pod", pod("p"))
        for _ in range(3):
            cluster.list_pods(KEY)
    assert len(script.requests) == 2


def test_a_status_is_written_without_the_spec() -> None:
    """The API server ignores it there; a pod template is longer than all else."""
    with serving((200, RUN)) as script:
        cluster = KubeCluster(connected(script.port), SystemClock(), Place("ns"))
        cluster.replace_run_status({**RUN, "spec": {"image": "x"}, "status": {"phase": "One"}})
    body = script.requests[0].body
    assert (sorted(body), body["metadata"]["resourceVersion"]) == (["apiVersion", "kind", "metadata", "status"], "7")


def test_progress_is_asked_at_the_pods_address_and_port() -> None:
    """A record, or a word for why there is none."""
    with serving((200, {"schema": 1}), (500, {})) as script:
        cluster = KubeCluster(connected(script.port), SystemClock(), Place("ns"))
        pod = {
            "spec": {
                "containers": [{"name": "pytorch", "env": [{"name": "TRAINRUN_AGENT_PORT", "value": str(script.port)}]}]
            },
            "status": {"podIP": "127.0.0.1"},
        }
        assert cluster.fetch_progress(pod, timeout_seconds=5).record == {"schema": 1}
        assert cluster.fetch_progress(pod, timeout_seconds=5).blind_because == "bad-answer"
    assert cluster.fetch_progress(pod, timeout_seconds=5).blind_because == "refused"
    assert cluster.fetch_progress({"spec": {}, "status": {}}, timeout_seconds=5).blind_because == "no-route"
