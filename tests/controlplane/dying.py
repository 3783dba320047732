"""Operators that are killed after every single write, and followed by one that knows nothing but the cluster."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
from kubernetes import client, config
from trainrun_operator.clock import SystemClock
from trainrun_operator.cluster import Key, Kind, Object
from trainrun_operator.errors import ClusterError
from trainrun_operator.kube.client import KubeClient
from trainrun_operator.kube.kube_cluster import WATCHED, KubeCluster, Place
from trainrun_operator.operator import Operator
from trainrun_operator.settings import Settings
from trainrun_operator.testing.cluster import OperatorKilled

from tests.controlplane.processes import KeptAlive
from tests.controlplane.proxy import Call, Fault, Proxy
from tests.controlplane.rights import OPERATOR_USER, OWN_NAMESPACE
from tests.controlplane.stage import Stage

TURN_SECONDS = 0.1


class OneWriteClient(KubeClient):
    """Dies as soon as the API server has carried out a write."""

    def _send(
        self, verb: str, kind: Kind | str, method: str, path: str, query: Object, **rest: Any
    ) -> urllib3.HTTPResponse:
        answer = super()._send(verb, kind, method, path, query, **rest)
        if method != "GET":
            answer.drain_conn()
            raise OperatorKilled
        return answer


class DyingOperator:
    """The shipped operator without kopf, in a thread: it lists instead of watching, and lives for one write at most."""

    def __init__(self, stage: Stage) -> None:
        configuration = client.Configuration()
        config.load_kube_config(str(stage.plane.kubeconfig(OPERATOR_USER)), client_configuration=configuration)
        configuration.retries = False
        self._api = client.ApiClient(configuration)
        self._namespace = stage.namespace
        self._stopping = threading.Event()
        self.errors: list[str] = []
        self.deaths = 0

    @contextmanager
    def running(self) -> Iterator[DyingOperator]:
        """While the block lasts."""
        thread = threading.Thread(target=self._loop, name="dying operator")
        thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            thread.join()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                self._live()
            except OperatorKilled:
                self.deaths += 1

    def _live(self) -> None:
        clock = SystemClock()
        place = Place(OWN_NAMESPACE, self._namespace)
        cluster = KubeCluster(OneWriteClient(self._api), clock, place)
        operator = Operator(cluster, clock, Settings(), self._hear)
        while not self._stopping.wait(TURN_SECONDS):
            try:
                for kind in WATCHED:
                    cluster.relist(kind)
            except ClusterError as error:
                self.errors.append(str(error))
                continue
            for run in cluster.list_runs():
                operator.queue.add(Key(run["metadata"]["namespace"], run["metadata"]["name"]))
            while operator.process_due():
                pass
            operator.poller.run_due()

    def _hear(self, line: Any) -> None:
        if line["type"] == "error":
            self.errors.append(f"{line['message']} {line.get('where', '')}")


@contextmanager
def killed_process(stage: Stage, proxy: Proxy) -> Iterator[KeptAlive]:
    """`python -m trainrun_operator` behind a proxy that kills it after every write; a kubelet starts it again."""
    operator = stage.new_operator("killed", through=proxy)

    def kill(call: Call) -> Fault | None:
        if not call.is_write:
            return None
        pid = operator.process.pid
        return Fault("after", then=lambda: os.kill(pid, signal.SIGKILL))

    proxy.on_call = kill
    with KeptAlive(operator.process) as kept:
        yield kept
