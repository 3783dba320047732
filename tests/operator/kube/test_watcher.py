"""A list, then changes for ever: what a watch may do on its way, and that nothing is lost by it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from trainrun_operator.clock import SystemClock
from trainrun_operator.kube import backoff
from trainrun_operator.kube.kube_cluster import KubeCluster, Place
from trainrun_operator.kube.watcher import Watcher

from tests.operator.kube.server import Answer, Request, serving, status
from tests.operator.kube.test_client import connected

PATIENCE_SECONDS = 20.0


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.01)


def node(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}}


def listed(version: int, *nodes: dict[str, Any]) -> Answer:
    return 200, {"metadata": {"resourceVersion": str(version)}, "items": [*nodes]}


def said(*events: tuple[str, dict[str, Any]]) -> Answer:
    """A watch that tells these and ends."""
    return 200, b"".join(json.dumps({"type": kind, "object": obj}).encode() + b"\n" for kind, obj in events)


def bookmark(version: int) -> tuple[str, dict[str, Any]]:
    return "BOOKMARK", {"kind": "Node", "metadata": {"resourceVersion": str(version)}}


class Server:
    """Lists and watches in their order; a watch after the last one is refused."""

    def __init__(self, lists: list[Answer], watches: list[Answer]) -> None:
        self._lists = lists
        self._watches = watches
        self.watched: list[str] = []
        """Versions from which a watch was asked for."""

    def answer(self, request: Request) -> Answer:
        query = parse_qs(urlparse(request.path).query)
        if "watch" not in query:
            return self._lists.pop(0)
        self.watched.append(query["resourceVersion"][0])
        return self._watches.pop(0) if self._watches else status(503, "ServiceUnavailable")


def watched(server: Server, done: Callable[[KubeCluster], bool]) -> KubeCluster:
    """The cluster as a watcher of nodes has made it when that is so."""
    with serving(answer=server.answer) as script:
        cluster = KubeCluster(connected(script.port), SystemClock(), Place("system"))
        watcher = Watcher(cluster, "Node")
        watcher.prime()
        watcher.start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not done(cluster):
            assert time.monotonic() < deadline, f"{names(cluster)} after {server.watched}"
            time.sleep(0.005)
        watcher.stop()
    return cluster


def names(cluster: KubeCluster) -> list[str]:
    return [obj["metadata"]["name"] for obj in cluster.list_nodes()]


def test_a_watch_that_ends_goes_on_where_it_ended() -> None:
    """Nothing is listed again; a bookmark spares what has nothing to do with us."""
    server = Server(
        [listed(5, node("a", 1))],
        [said(("ADDED", node("b", 6)), bookmark(40)), said(("DELETED", node("a", 41)), ("MODIFIED", node("b", 42)))],
    )
    cluster = watched(server, lambda cluster: len(server.watched) > 2)
    assert server.watched[:3] == ["5", "40", "42"]
    assert names(cluster) == ["b"]
    assert cluster.cache.ages_seconds()["Node"] < PATIENCE_SECONDS


@pytest.mark.parametrize(
    "forgotten",
    [
        pytest.param(status(410, "Expired"), id="at-its-begin"),
        pytest.param(said(("ERROR", {"code": 410, "message": "too old resource version"})), id="on-its-way"),
    ],
)
def test_a_version_that_is_too_old_means_a_new_list(forgotten: Answer) -> None:
    """What went meanwhile is found missing."""
    server = Server([listed(5, node("a", 1), node("b", 2)), listed(90, node("b", 2))], [forgotten])
    cluster = watched(server, lambda cluster: "90" in server.watched)
    assert server.watched[:2] == ["5", "90"]
    assert names(cluster) == ["b"]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(
            (200, json.dumps({"type": "ADDED", "object": node("b", 6)}).encode() + b'\n{"type": "ADD'), id="torn"
        ),
        pytest.param((200, said(("ADDED", node("b", 6)))[1] + b"<html>busy</html>\n"), id="not-json"),
        pytest.param(said(("ADDED", node("b", 6)), ("ERROR", {"code": 500, "message": "etcd"})), id="error"),
    ],
)
def test_a_watch_that_breaks_goes_on_after_its_last_event(broken: Answer) -> None:
    """Also at the half of a line."""
    server = Server([listed(5)], [broken, status(401, "Unauthorized"), said(("ADDED", node("c", 7)))])
    cluster = watched(server, lambda cluster: names(cluster) == ["b", "c"])
    assert server.watched[:3] == ["5", "6", "6"]
    assert names(cluster) == ["b", "c"]


@pytest.mark.parametrize(
    "endless",
    [pytest.param(status(410, "Expired"), id="always-too-old"), pytest.param((200, b""), id="ends-without-a-word")],
)
def test_watches_that_never_live_cost_ever_less(endless: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither lists nor watches follow each other without a wait."""
    waits: list[float] = []
    failed = backoff.Backoff.failed

    def noted(self: backoff.Backoff) -> float:
        waits.append(failed(self))
        return waits[-1]

    monkeypatch.setattr(backoff.Backoff, "failed", noted)
    server = Server([listed(5)] * 9, [endless] * 5)
    watched(server, lambda cluster: len(waits) > 4)
    bounds = [0.01, 0.02, 0.04, 0.08, 0.16]
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(waits, bounds, strict=False))


@pytest.mark.parametrize("cut", [(200, b""), status(503, "ServiceUnavailable")], ids=["cut", "refused"])
def test_what_watches_cannot_tell_is_listed(cut: Answer) -> None:
    """Something ends each of them before it says a word: the third is not followed by a fourth, but by a list."""
    server = Server([listed(5, node("a", 1)), listed(9, node("b", 8))], [cut, cut, cut])
    cluster = watched(server, lambda cluster: names(cluster) == ["b"])
    assert server.watched[:4] in (["5", "5", "5"], ["5", "5", "5", "9"])
    assert names(cluster) == ["b"]


def test_priming_goes_on_until_the_list_is_there(caplog: pytest.LogCaptureFixture) -> None:
    """Each failure is said."""
    server = Server([status(503, "ServiceUnavailable"), (200, b"<html>"), listed(5, node("a", 1))], [])
    cluster = watched(server, lambda cluster: True)
    assert names(cluster) == ["a"]
    assert caplog.text.count("Node cannot be watched, again in") >= 2


def test_a_silent_watch_is_ended_at_once() -> None:
    """The API server may say nothing for a minute; a stop does not wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        cluster = KubeCluster(connected(listener.getsockname()[1]), SystemClock(), Place("system"))
        watcher = Watcher(cluster, "Node")
        watcher._version = "5"
        watcher.start()
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            event = said(("ADDED", node("a", 6)))[1]
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(event), event)
            )
            deadline = time.monotonic() + PATIENCE_SECONDS
            while names(cluster) != ["a"]:
                assert time.monotonic() < deadline, "the event was not seen"
                time.sleep(0.005)
            watcher.stop()
            assert not watcher._thread.is_alive()
