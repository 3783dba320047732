"""KubeCluster on a real API server, fed by the operator's watches, keeps the contract that FakeCluster keeps."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import kopf
import pytest
from kubernetes import client, config
from trainrun_api.contract import Label
from trainrun_operator import handlers
from trainrun_operator.clock import SystemClock
from trainrun_operator.cluster import Key, Object
from trainrun_operator.kube import rbac
from trainrun_operator.kube.client import KubeClient
from trainrun_operator.kube.kube_cluster import KubeCluster, Place
from trainrun_operator.kube.refresher import Refresher
from trainrun_operator.kube.watcher import KINDS, Watcher

from tests.controlplane.api import JOBS
from tests.controlplane.rights import OPERATOR_USER, grant
from tests.controlplane.stage import Stage
from tests.controlplane.waiting import wait_for
from tests.operator.contract_cluster import ClusterContract, Subject

pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored.*socket:pytest.PytestUnraisableExceptionWarning")


class TestKubeCluster(ClusterContract):
    """The contract, with nothing but the operator's rights."""

    @pytest.fixture
    def subject(self, stage: Stage) -> Iterator[Subject]:
        """A cluster of the test's namespace, watched as the operator watches."""
        grant(stage.api, "Role", stage.namespace, "fleet", rbac.rules(rbac.OWN_NAMESPACE))
        grant(stage.api, "Role", "default", "trainrun", rbac.rules(rbac.PER_NAMESPACE))  # where "nobody" is asked for
        configuration = client.Configuration()
        config.load_kube_config(str(stage.plane.kubeconfig(OPERATOR_USER)), client_configuration=configuration)
        configuration.retries = False
        kube = KubeClient(client.ApiClient(configuration))
        cluster = KubeCluster(kube, SystemClock(), Place(stage.namespace, stage.namespace))
        with watching(cluster, stage.namespace, configuration):

            def add_run(name: str) -> Key:
                stage.create_run(name, {"spec": {"workers": {"replicas": 1}}})
                return Key(stage.namespace, name)

            yield Subject(cluster, add_run, lambda: settle(stage, cluster))

    def test_the_warnings_of_a_job_come_with_their_times(self, subject: Subject, stage: Stage) -> None:
        """Its own, and no other Event."""
        _, run = self.run(subject)
        job = self.job(subject, run)
        uid = job["metadata"]["uid"]
        for name, about, kind in (("a", uid, "Warning"), ("b", "another", "Warning"), ("c", uid, "Normal")):
            record_event(stage, name, about, kind)
        (told,) = subject.cluster.job_warnings(job)
        assert (told["message"], told["lastTimestamp"]) == ("said a", "2026-01-01T00:00:00Z")


def record_event(stage: Stage, name: str, uid: str, kind: str) -> None:
    """As training-operator records it on its jobs."""
    event = {
        "metadata": {"name": name, "namespace": stage.namespace},
        "involvedObject": {"kind": "PyTorchJob", "namespace": stage.namespace, "name": "a-a0", "uid": uid},
        "type": kind,
        "reason": "FailedCreatePod",
        "message": f"said {name}",
        "lastTimestamp": "2026-01-01T00:00:00Z",
    }
    stage.api.create(f"/api/v1/namespaces/{stage.namespace}/events", event)


@contextmanager
def watching(cluster: KubeCluster, namespace: str, configuration: client.Configuration) -> Iterator[None]:
    """kopf in a thread, and all else that feeds the cache."""

    def login(**_: object) -> kopf.ConnectionInfo:
        token = configuration.api_key["authorization"].removeprefix("Bearer ")
        return kopf.ConnectionInfo(server=configuration.host, ca_path=configuration.ssl_ca_cert, token=token)

    refresher, stop = Refresher(cluster, 3600.0), threading.Event()
    eyes: list[Refresher | Watcher] = [refresher, *(Watcher(cluster, kind) for kind in KINDS)]
    for eye in eyes:
        eye.prime()
        eye.start()

    async def watch() -> None:
        await kopf.operator(
            registry=handlers.registry(cluster.cache, refresher.soon, login),
            settings=handlers.settings(is_namespaced=True),
            standalone=True,
            namespaces=[namespace],
            stop_flag=stop,
        )
        await asyncio.sleep(0.1)  # aiohttp closes its connections in the loop's next rounds

    thread = threading.Thread(target=lambda: asyncio.run(watch()), name="kopf")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for eye in eyes:
            eye.stop()
        with warnings.catch_warnings():  # kopf leaves the sockets of cancelled watches to the garbage collector
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


def settle(stage: Stage, cluster: KubeCluster) -> None:
    """Until every job is known to run, and the cache shows what the API server has."""
    wait_for(lambda: _is_settled(stage, cluster), "controllers and watches", seen=lambda: _live(stage))


def _is_settled(stage: Stage, cluster: KubeCluster) -> bool:
    live = _live(stage)
    seen = _versions(cluster.cache.all("TrainingRun"), cluster.cache.all("PyTorchJob"), cluster.cache.all("Pod"))
    jobs = stage.api.get(f"{JOBS}/namespaces/{stage.namespace}/pytorchjobs")["items"]
    pods = stage.api.get(f"/api/v1/namespaces/{stage.namespace}/pods?labelSelector={Label.RUN}")["items"]
    owners = {ref["uid"] for pod in pods for ref in pod["metadata"]["ownerReferences"]}
    have_run = all(_has_run(job) for job in jobs)
    are_owned = owners <= {job["metadata"]["uid"] for job in jobs}
    is_still = not any("deletionTimestamp" in pod["metadata"] for pod in pods)
    are_running = all(pod["status"]["phase"] == "Running" for pod in pods)
    return live == seen and have_run and are_owned and is_still and are_running


def _has_run(job: Object) -> bool:
    """training-operator has noted that its pod ran, and does not take that back. A job whose pod fails before that
    never gets there. Not asked is whether it has a pod now: one that is removed may be missed for minutes."""
    return any(c["type"] == "Running" for c in (job.get("status") or {}).get("conditions") or ())


def _live(stage: Stage) -> dict[str, str]:
    get = stage.api.get
    return _versions(
        get(f"/apis/trainrun.dev/v1alpha1/namespaces/{stage.namespace}/trainingruns")["items"],
        get(f"{JOBS}/namespaces/{stage.namespace}/pytorchjobs?labelSelector={Label.RUN}")["items"],
        get(f"/api/v1/namespaces/{stage.namespace}/pods?labelSelector={Label.RUN}")["items"],
    )


def _versions(*lists: list[Object]) -> dict[str, str]:
    return {o["metadata"]["uid"]: o["metadata"]["resourceVersion"] for objects in lists for o in objects}
