"""`python -m trainrun_operator --leader-elect` as a process: standing by, leading, giving back, losing the lease."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kopf
import pytest
from trainrun_operator.__main__ import _watch
from trainrun_operator.clock import SystemClock
from trainrun_operator.kube.kube_cluster import KubeCluster, Place
from trainrun_operator.kube.refresher import Refresher

from tests.operator.kube.server import Answer, Request, Script, serving, status
from tests.operator.kube.test_client import connected

LEASE = "/leases/trainrun-operator"
PATIENCE_SECONDS = 60.0
"""Of the test; the processes need a second or two."""


def lease(holder: str) -> Answer:
    return 200, {
        "metadata": {"namespace": "system", "name": "trainrun-operator", "resourceVersion": "1"},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15},
    }


def wait_for(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline, f"still waiting for {what}"
        time.sleep(0.05)


class OperatorProcess:
    """The process, and the port that it was given."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    def get(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""


@contextmanager
def operating(script: Script, folder: Path) -> Iterator[OperatorProcess]:
    """Against the scripted API server."""
    named = {"name": "fake", "cluster": {"server": f"http://127.0.0.1:{script.port}"}}
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "fake", "clusters": [named],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        "users": [{"name": "fake", "user": {"token": "t"}}],
    }  # fmt: skip
    (folder / "kubeconfig").write_text(json.dumps(config))
    with serving((200, {})) as unused:
        port = unused.port
    command = [sys.executable, "-m", "trainrun_operator", "--leader-elect", "--host", "127.0.0.1", "--port", str(port),
               "--own-namespace", "system"]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, "KUBECONFIG": str(folder / "kubeconfig")}, stdout=log, stderr=log
        )
    try:
        yield OperatorProcess(process, port)
    finally:
        process.kill()
        process.wait()


def test_standby_is_well_and_lists_nothing(tmp_path: Path) -> None:
    """Until it leads it costs nothing; asked to stop it ends at once, and touches no lease of another."""
    with serving(lease("another")) as script, operating(script, tmp_path) as standby:
        wait_for(lambda: len(script.requests) > 1, "the second look at the lease")
        assert standby.get("/healthz") == "ok\n"
        metrics = standby.get("/metrics")
        assert "trainrun_leader 0.0" in metrics
        assert "trainrun_alive_timestamp_seconds" not in metrics
        standby.process.send_signal(signal.SIGTERM)
        assert standby.process.wait(PATIENCE_SECONDS) == 0
    assert {(r.method, r.path.endswith(LEASE)) for r in script.requests} == {("GET", True)}


@pytest.mark.parametrize(("usurper", "code"), [("another", 3), ("", 0)], ids=["lost", "asked-to-stop"])
def test_leader_ends_by_the_reason(tmp_path: Path, usurper: str, code: int) -> None:
    """Non-zero when another one leads, so that the kubelet starts it anew; with the lease given back otherwise."""
    stored = [lease("")]

    def answer(request: Request) -> Answer:
        if "/leases" not in request.path:
            return status(503, "ServiceUnavailable")  # it goes on asking for its lists
        if request.method == "PUT":
            stored[0] = (200, request.body)
        return stored[0]

    with serving(answer=answer) as script, operating(script, tmp_path) as leader:
        wait_for(lambda: "trainrun_leader 1.0" in leader.get("/metrics"), "the lease to be taken")
        wait_for(lambda: any("trainingruns" in r.path for r in script.requests), "the first list")
        assert "trainrun_alive_timestamp_seconds" not in leader.get("/metrics"), "it has seen nothing yet"
        if usurper:
            stored[0] = lease(usurper)
        else:
            leader.process.send_signal(signal.SIGTERM)
        assert leader.process.wait(PATIENCE_SECONDS) == code
    assert stored[0][1]["spec"]["holderIdentity"] == usurper


def test_no_user_s_name_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The image runs as a number that /etc/passwd does not know; kopf looks the name up unless it gets one."""
    given: dict[str, Any] = {}

    async def operator(**options: Any) -> None:
        given.update(options)

    monkeypatch.setattr(kopf, "operator", operator)
    with serving((200, {})) as script:
        cluster = KubeCluster(connected(script.port), SystemClock(), Place("system"))
    asyncio.run(_watch(cluster, Refresher(cluster, 60.0), ""))
    assert given["identity"]
    assert (given["standalone"], given["clusterwide"], given["namespaces"]) == (True, True, [])
