"""Everything a test of this layer acts on: the cluster, a user's hands, and operators under test."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from trainrun_api.contract import Label
from trainrun_api.manifest import load_manifest
from trainrun_operator.cluster import Object
from trainrun_operator.kube import rbac

from tests.api.manifests import good, merged
from tests.controlplane.api import CORE, JOBS, RUNS, Api
from tests.controlplane.cluster import Cluster
from tests.controlplane.operator_process import OperatorProcess
from tests.controlplane.proxy import Proxy
from tests.controlplane.rights import OPERATOR_USER, grant
from tests.controlplane.waiting import LONGEST_SECONDS, wait_for

T = TypeVar("T")
_NUMBERS = itertools.count()


class User:
    """A user's hands and eyes: short names for what tests say; `namespace` is the test's own."""

    patience_seconds = LONGEST_SECONDS

    def __init__(self, api: Api, namespace: str) -> None:
        self.api = api
        self.namespace = namespace

    # -- a user ----------------------------------------------------------------------------------

    def apply(self, path: Path, *, dry_run: bool = False) -> str:
        """kubectl apply -f, strictly; the run's name."""
        run = load_manifest(path)
        run["metadata"]["namespace"] = self.namespace
        self.api.create(f"{self.runs_path}?fieldValidation=Strict{'&dryRun=All' if dry_run else ''}", run)
        return str(run["metadata"]["name"])

    def edit_run(self, name: str, spec: dict[str, Any]) -> None:
        """kubectl patch."""
        self.api.merge(f"{self.runs_path}/{name}", {"spec": spec})

    def delete_run(self, name: str) -> None:
        """kubectl delete."""
        self.api.delete(f"{self.runs_path}/{name}")

    def run(self, name: str) -> Object:
        """The run now; an empty status is {}."""
        run = self.api.get(f"{self.runs_path}/{name}")
        assert run is not None, f"run {name} is gone"
        return {"status": {}, **run}

    def jobs(self, name: str) -> list[Object]:
        """The run's PyTorchJobs that are not being deleted."""
        found = self.api.get(f"{JOBS}/namespaces/{self.namespace}/pytorchjobs?labelSelector={Label.RUN}={name}")
        return [job for job in found["items"] if "deletionTimestamp" not in job["metadata"]]

    def pods(self, name: str, attempt: int | None = None) -> list[Object]:
        """The run's pods, by name."""
        selector = f"{Label.RUN}={name}" + ("" if attempt is None else f",{Label.ATTEMPT}={attempt}")
        found = self.api.get(f"/api/v1/namespaces/{self.namespace}/pods?labelSelector={selector}")
        return sorted(found["items"], key=lambda pod: str(pod["metadata"]["name"]))

    @staticmethod
    def pod_path(pod: Object) -> str:
        """Where the API server has it."""
        return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"

    def events(self, name: str) -> list[Object]:
        """Events on the run."""
        found = self.api.get(f"/api/v1/namespaces/{self.namespace}/events")
        return [e for e in found["items"] if e["involvedObject"]["name"] == name]

    # -- waiting ---------------------------------------------------------------------------------

    def wait_running(
        self, name: str, attempt: int, *, but_not: Sequence[Object] = (), workers: int | None = None
    ) -> list[Object]:
        """Until all pods of the attempt run; returns them. Pods of an earlier run do not count. `workers`: how many it
        shall have if not as many as the spec wants."""
        others = {pod["metadata"]["uid"] for pod in but_not}

        def look() -> list[Object]:
            pods = [pod for pod in self.pods(name, attempt) if pod["metadata"]["uid"] not in others]
            asked = self.run(name)["spec"]["workers"]
            wanted = workers or asked["replicas"] + asked.get("spares", 0)
            return pods if len(pods) == wanted and all(p["status"]["phase"] == "Running" for p in pods) else []

        return self._wait(look, f"attempt {attempt} of {name} to run", name)

    def wait_status(self, name: str, **expected: Any) -> Object:
        """Until these top-level fields of status have these values; returns the status."""

        def look() -> Object | None:
            status: Object = self.run(name)["status"]
            return status if all(status.get(k) == v for k, v in expected.items()) else None

        found = self._wait(look, f"status of {name} to be {expected}", name)
        assert found is not None
        return found

    def wait_reason(self, name: str, reason: str) -> Object:
        """Until the Ready condition gives this reason; returns the condition."""

        def look() -> Object | None:
            conditions = self.run(name)["status"].get("conditions") or []
            return next((c for c in conditions if c["type"] == "Ready" and c["reason"] == reason), None)

        found = self._wait(look, f"{name} to be {reason}", name)
        assert found is not None
        return found

    def wait_sentence(self, name: str, reason: str, *parts: str) -> None:
        """Until the Ready condition gives this reason, and its sentence has all of these parts: the first sentence of
        a reason tells what is known at that moment."""

        def look() -> bool:
            message = self.wait_reason(name, reason)["message"]
            return all(part in message for part in parts)

        self._wait(look, f"{name} to be {reason} with {' and '.join(parts)}", name)

    def story(self, name: str) -> str:
        """What a failing test shows."""
        run = self.api.get(f"{self.runs_path}/{name}")
        pods = [(p["metadata"]["name"], p["status"].get("phase"), p["spec"].get("nodeName")) for p in self.pods(name)]
        status = None if run is None else run.get("status")
        return json.dumps({"status": status, "jobs": [j["metadata"]["name"] for j in self.jobs(name)], "pods": pods})

    def attempts(self, name: str) -> list[tuple[int, str | None]]:
        """(number, cause) of each attempt on record."""
        return [(a["number"], a.get("cause")) for a in self.run(name)["status"].get("attempts") or []]

    @property
    def runs_path(self) -> str:
        """Where the API server has the runs of this namespace."""
        return f"{RUNS}/namespaces/{self.namespace}/trainingruns"

    def _wait(self, look: Callable[[], T], what: str, name: str) -> T:
        return wait_for(look, what, self.patience_seconds, seen=lambda: self.story(name))


class Stage(User):
    """With played nodes and trainers, and operators under test."""

    def __init__(self, cluster: Cluster, namespace: str, node_names: list[str]) -> None:
        super().__init__(cluster.plane.api(), namespace)
        self.plane = cluster.plane
        self.nodes = cluster.nodes
        self.trainers = cluster.trainers
        self.node_names = node_names

    def create_run(self, name: str, patch: dict[str, Any] | None = None) -> Object:
        """A good manifest with this name, patched."""
        manifest = merged(good(), {"metadata": {"name": name, "namespace": self.namespace}})
        manifest = merged(manifest, {"spec": {"checkpoint": {"path": f"/checkpoints/{name}"}}})
        run: Object = self.api.create(self.runs_path, merged(manifest, patch or {}))
        return run

    def create_quota(self, hard: dict[str, str]) -> None:
        """A quota named "small", in force."""
        path = f"/api/v1/namespaces/{self.namespace}/resourcequotas"
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": {"hard": hard}}
        self.api.create(path, quota)
        wait_for(lambda: self.api.get(f"{path}/small").get("status", {}).get("hard"), "the quota to be counted")

    # -- the operator ----------------------------------------------------------------------------

    @contextmanager
    def operator(
        self, name: str = "operator", *options: str, through: Proxy | None = None
    ) -> Iterator[OperatorProcess]:
        """An operator of the test's namespace with nothing but its own rights, and perhaps a proxy in between."""
        process = self.new_operator(name, *options, through=through)
        with process.process:
            process.wait_ready()
            yield process

    def new_operator(self, name: str, *options: str, through: Proxy | None = None) -> OperatorProcess:
        """Not started yet."""
        config = self.plane.kubeconfig(OPERATOR_USER)
        if through is not None:
            config = self.plane.kubeconfig_through(through.url, OPERATOR_USER)
        return OperatorProcess(self.plane.folder, config, self.namespace, name, *options, is_forked=True)


@contextmanager
def new_stage(whole: Cluster) -> Iterator[Stage]:
    """A namespace of its own with the operator's rights, three nodes; everything in it goes at the end.

    The nodes take pods by then: while one of three does not, two pods of a job share another. And the namespace has its
    default ServiceAccount, without which pods are refused.
    """
    number = next(_NUMBERS)
    namespace, api = f"test-{number}", whole.plane.api()
    api.create(f"{CORE}/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    grant(api, "Role", namespace, "trainrun", rbac.rules(rbac.PER_NAMESPACE))
    stage = Stage(whole, namespace, [f"node-{number}-{letter}" for letter in "abc"])
    for node in stage.node_names:
        whole.nodes.add(node)
    wait_for(lambda: api.get(f"{CORE}/namespaces/{namespace}/serviceaccounts/default"), "the default ServiceAccount")
    wait_for(
        lambda: all(whole.nodes.takes_pods(node) for node in stage.node_names), f"{namespace}'s nodes to take pods"
    )
    yield stage
    for run in api.get(stage.runs_path)["items"]:
        stage.delete_run(run["metadata"]["name"])
    for node in stage.node_names:
        whole.nodes.remove(node)
    api.delete(f"{CORE}/namespaces/{namespace}")
