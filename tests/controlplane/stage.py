"""Everything a test of this layer acts on: the control plane, a user's hands, kubelets, and operators under test."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trainrun_api.contract import Label
from trainrun_operator.cluster import Object
from trainrun_operator.kube import rbac

from tests.api.manifests import good, merged
from tests.controlplane.api import JOBS, RUNS, Api
from tests.controlplane.control_plane import ROOT, ControlPlane
from tests.controlplane.kubelets import Kubelets
from tests.controlplane.processes import Process, free_ports
from tests.controlplane.waiting import wait_for

OPERATOR_USER = "trainrun-operator"
OWN_NAMESPACE = "trainrun-system"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


class Stage:
    """Short names for what tests say; `namespace` is the test's own."""

    def __init__(self, plane: ControlPlane, kubelets: Kubelets, namespace: str) -> None:
        self.plane = plane
        self.api = plane.api()
        self.kubelets = kubelets
        self.namespace = namespace

    # -- a user ----------------------------------------------------------------------------------

    def create_run(self, name: str, patch: dict[str, Any] | None = None) -> Object:
        """A good manifest with this name, patched."""
        manifest = merged(good(), {"metadata": {"name": name, "namespace": self.namespace}})
        manifest = merged(manifest, {"spec": {"checkpoint": {"path": f"/checkpoints/{name}"}}})
        run: Object = self.api.create(self._runs(), merged(manifest, patch or {}))
        return run

    def edit_run(self, name: str, spec: dict[str, Any]) -> None:
        """kubectl patch."""
        self.api.merge(f"{self._runs()}/{name}", {"spec": spec})

    def delete_run(self, name: str) -> None:
        """kubectl delete."""
        self.api.delete(f"{self._runs()}/{name}")

    def run(self, name: str) -> Object:
        """The run now; an empty status is {}."""
        run = self.api.get(f"{self._runs()}/{name}")
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

    def events(self, name: str) -> list[Object]:
        """Events on the run."""
        found = self.api.get(f"/api/v1/namespaces/{self.namespace}/events")
        return [e for e in found["items"] if e["involvedObject"]["name"] == name]

    # -- waiting ---------------------------------------------------------------------------------

    def wait_running(self, name: str, attempt: int) -> list[Object]:
        """Until all pods of the attempt run; returns them."""

        def look() -> list[Object]:
            pods = self.pods(name, attempt)
            wanted = self.run(name)["spec"]["workers"]["replicas"]
            return pods if len(pods) == wanted and all(p["status"]["phase"] == "Running" for p in pods) else []

        return wait_for(look, f"attempt {attempt} of {name} to run", seen=lambda: self.story(name))

    def wait_status(self, name: str, **expected: Any) -> Object:
        """Until these top-level fields of status have these values; returns the status."""

        def look() -> Object | None:
            status: Object = self.run(name)["status"]
            return status if all(status.get(k) == v for k, v in expected.items()) else None

        found = wait_for(look, f"status of {name} to be {expected}", seen=lambda: self.story(name))
        assert found is not None
        return found

    def wait_reason(self, name: str, reason: str) -> Object:
        """Until the Ready condition gives this reason; returns the condition."""

        def look() -> Object | None:
            conditions = self.run(name)["status"].get("conditions") or []
            return next((c for c in conditions if c["type"] == "Ready" and c["reason"] == reason), None)

        found = wait_for(look, f"{name} to be {reason}", seen=lambda: self.story(name))
        assert found is not None
        return found

    def story(self, name: str) -> str:
        """What a failing test shows."""
        run = self.api.get(f"{self._runs()}/{name}")
        pods = [(p["metadata"]["name"], p["status"].get("phase"), p["spec"].get("nodeName")) for p in self.pods(name)]
        status = None if run is None else run.get("status")
        return json.dumps({"status": status, "jobs": [j["metadata"]["name"] for j in self.jobs(name)], "pods": pods})

    def attempts(self, name: str) -> list[tuple[int, str | None]]:
        """(number, cause) of each attempt on record."""
        return [(a["number"], a.get("cause")) for a in self.run(name)["status"].get("attempts") or []]

    # -- the operator ----------------------------------------------------------------------------

    @contextmanager
    def operator(self, name: str = "operator", *options: str) -> Iterator[OperatorProcess]:
        """An operator of the test's namespace with nothing but its own rights."""
        process = OperatorProcess(self.plane, self.namespace, name, *options)
        with process.process:
            process.wait_ready()
            yield process

    def _runs(self) -> str:
        return f"{RUNS}/namespaces/{self.namespace}/trainingruns"


class OperatorProcess:
    """`python -m trainrun_operator` beside the cluster."""

    def __init__(self, plane: ControlPlane, namespace: str, name: str, *options: str) -> None:
        (self.port,) = free_ports(1)
        env = {
            **os.environ,
            "KUBECONFIG": str(plane.kubeconfig(OPERATOR_USER)),
            "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("api", "operator", "trainer")),
        }
        command = [
            sys.executable, "-m", "trainrun_operator", "--host", "127.0.0.1", "--port", str(self.port),
            "--own-namespace", OWN_NAMESPACE, "--namespace", namespace, *options,
        ]  # fmt: skip
        self.process = Process(f"{namespace}-{name}", command, plane.folder, env=env)

    def wait_ready(self) -> None:
        """Until it answers."""
        self.process.wait_until(lambda: self.get("/healthz") == "ok\n", "healthy")

    def get(self, path: str) -> str:
        """An answer of its HTTP server; empty if there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def lines(self) -> list[dict[str, Any]]:
        """Its log."""
        return [json.loads(line) for line in self.process.log.read_text().splitlines() if line.startswith("{")]


def prepare_operator(api: Api) -> None:
    """The operator's namespace, and the rights that bind to any namespace."""
    api.apply(f"/api/v1/namespaces/{OWN_NAMESPACE}", _named("v1", "Namespace", OWN_NAMESPACE))
    grant(api, "ClusterRole", "", "trainrun-nodes", rbac.rules(rbac.CLUSTER_WIDE))
    grant(api, "Role", OWN_NAMESPACE, "trainrun-fleet", rbac.rules(rbac.OWN_NAMESPACE))


def grant(api: Api, kind: str, namespace: str, name: str, rules: list[Object]) -> None:
    """A role, bound to the operator's user."""
    at = f"{RBAC}/namespaces/{namespace}" if namespace else RBAC
    version = "rbac.authorization.k8s.io/v1"
    plural = f"{kind.lower()}s"
    api.apply(f"{at}/{plural}/{name}", {**_named(version, kind, name), "rules": rules})
    binding = {
        **_named(version, f"{kind}Binding", name),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": OPERATOR_USER}],
    }
    api.apply(f"{at}/{kind.lower()}bindings/{name}", binding)


def _named(version: str, kind: str, name: str) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}}
