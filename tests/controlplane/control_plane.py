"""A real control plane of one machine: etcd, kube-apiserver, controller-manager, scheduler, all on loopback.

No kubelet runs: kwok plays them (`nodes.py`). Node heartbeats are not expected (a grace period of a day), so that tests
alone say when a node is lost. With an address that real nodes reach, it is a whole one, which hears their heartbeats.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

import yaml

from tests.controlplane.api import Api, ApiError
from tests.controlplane.binaries import ensure, module_folder
from tests.controlplane.processes import Process, free_ports
from tests.controlplane.queue import ADMISSION_FLAGS
from tests.controlplane.waiting import wait_for

ROOT = Path(__file__).parents[2]
USERS = {"admin": "system:masters", "trainrun-operator": "", "nobody": ""}
"""Users of the API server and their group; who has none has the rights that a test binds to him."""

CONTROLLERS = (
    "garbage-collector-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "persistentvolume-binder-controller",
    "pod-garbage-collector-controller",
    "resourcequota-controller",
    "serviceaccount-controller",
    "taint-eviction-controller",
)
"""Those whose work our objects meet."""

LOOPBACK = "127.0.0.1"
RETURN_SECONDS = 300.0
GRACE_SECONDS = 6
"""A real node is not Ready so long after its last heartbeat."""


class ControlPlane:
    """Context manager; `folder` gets its data, logs and kubeconfigs. `address`: where the API server listens."""

    def __init__(self, folder: Path, address: str = LOOPBACK) -> None:
        self.folder = folder
        self.address = address
        self._has_nodes = address != LOOPBACK
        self._etcd_port, self._etcd_peer_port, self.port, *self._quiet = free_ports(5)
        self._certificates = folder / "certs"
        self._stack = ExitStack()
        self.apiserver: Process

    def __enter__(self) -> ControlPlane:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def api(self, user: str = "admin") -> Api:
        """The API server as this user."""
        return Api(self.kubeconfig(user))

    def kubeconfig(self, user: str = "admin") -> Path:
        """The user's kubeconfig."""
        return self.folder / f"{user}.kubeconfig"

    @property
    def authority(self) -> Path:
        """The certificate that the API server's callers trust."""
        return self._certificates / "apiserver.crt"

    def kubeconfig_through(self, url: str, user: str) -> Path:
        """The user's kubeconfig with another address of the API server."""
        config = json.loads(self.kubeconfig(user).read_text())
        config["clusters"][0]["cluster"] = {"server": url}
        path = self.folder / f"{user}-{url.rsplit(':', 1)[1]}.kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def start_controllers(self, *more: str) -> None:
        """Controller-manager and scheduler, with `more` flags of both. Definitions must be installed before: the
        garbage collector looks for new kinds only every 30 s."""
        for name, port, own in (
            ("kube-controller-manager", self._quiet[0], self._controller_flags()),
            ("kube-scheduler", self._quiet[1], []),
        ):
            command = [
                str(ensure(name)), f"--kubeconfig={self.kubeconfig()}", "--leader-elect=false",
                "--bind-address=127.0.0.1", f"--secure-port={port}", f"--cert-dir={self.folder / name}", *own, *more,
            ]  # fmt: skip
            self._stack.enter_context(Process(name, command, self.folder))

    @contextmanager
    def without_apiserver(self) -> Iterator[None]:
        """Nobody answers inside of it; afterwards the same objects are served again."""
        self.apiserver.kill()
        try:
            yield
        finally:
            wait_for(self._serves_again, "the API server to be back", RETURN_SECONDS, seen=self.apiserver.tail)

    def _serves_again(self) -> bool:
        """It gives up when a starved machine lets it wait too long for its own answers; it would be started again."""
        if self.apiserver.has_ended():
            self.apiserver.start()
        return self._is_ready()

    def _start(self, stack: ExitStack) -> None:
        self._write_credentials()
        etcd = f"http://127.0.0.1:{self._etcd_port}"
        peer = f"http://127.0.0.1:{self._etcd_peer_port}"
        stack.enter_context(Process("etcd", [
            str(ensure("etcd")), f"--data-dir={self.folder / 'etcd'}", f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}", f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}", "--unsafe-no-fsync", "--log-level=error",
        ], self.folder))  # fmt: skip
        self.apiserver = stack.enter_context(Process("kube-apiserver", [
            str(ensure("kube-apiserver")), f"--etcd-servers={etcd}", f"--bind-address={self.address}",
            f"--advertise-address={self.address}", f"--secure-port={self.port}", f"--cert-dir={self._certificates}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder / 'sa.key'}",
            f"--service-account-signing-key-file={self.folder / 'sa.key'}",
            "--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC",
            f"--token-auth-file={self.folder / 'tokens.csv'}", *self._apiserver_flags(),
        ], self.folder))  # fmt: skip
        self.apiserver.wait_until(self._is_ready, "ready")

    def _is_ready(self) -> bool:
        if not self.authority.exists():
            return False
        try:
            return bool(self.api().call("GET", "/readyz")["message"] == "ok")
        except ApiError:
            return False

    def _apiserver_flags(self) -> list[str]:
        if self._has_nodes:
            return ["--allow-privileged=true", "--kubelet-preferred-address-types=InternalIP"]
        return ["--endpoint-reconciler-type=none", *ADMISSION_FLAGS]  # loopback is no address for a Service

    def _controller_flags(self) -> list[str]:
        grace = f"{GRACE_SECONDS}s" if self._has_nodes else "24h"
        return [
            f"--controllers={'*' if self._has_nodes else ','.join(CONTROLLERS)}",
            f"--service-account-private-key-file={self.folder / 'sa.key'}",
            f"--root-ca-file={self.authority}",
            f"--node-monitor-grace-period={grace}", "--node-monitor-period=1s",
        ]  # fmt: skip

    def _write_credentials(self) -> None:
        subprocess.run(
            ["openssl", "genrsa", "-out", str(self.folder / "sa.key"), "2048"], check=True, capture_output=True
        )
        lines = []
        for user, group in USERS.items():
            token = secrets.token_hex(16)
            lines.append(f'{token},{user},{user}-uid,"{group}"')
            self.kubeconfig(user).write_text(json.dumps(self._kubeconfig(user, token)))
        (self.folder / "tokens.csv").write_text("\n".join(lines) + "\n")

    def _kubeconfig(self, user: str, token: str) -> dict[str, object]:
        cluster = {
            "server": f"https://{self.address}:{self.port}",
            "certificate-authority": str(self.authority),
        }
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        }


def install_definitions(api: Api, module: str = "training-operator") -> None:
    """Our CRD, and training-operator's PyTorchJob of that version; waits until they are served."""
    _install(api, [ROOT / "crds" / "trainrun.dev_trainingruns.yaml", *_job_definitions(module)])


def install_job_definition(api: Api) -> None:
    """PyTorchJob alone, for a cluster into which Helm brings ours."""
    _install(api, _job_definitions("training-operator"))


def _install(api: Api, files: list[Path]) -> None:
    names = []
    for file in files:
        definition = yaml.load(file.read_text(), Loader=yaml.CSafeLoader)
        names.append(definition["metadata"]["name"])
        api.apply(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{names[-1]}", definition)
    for name in names:
        _wait_established(api, name)


def _job_definitions(module: str) -> list[Path]:
    """training-operator's; 1.7 watches all of its six kinds, whatever it is told to serve."""
    folder = module_folder(module, "github.com/kubeflow/training-operator") / "manifests" / "base" / "crds"
    if module == "training-operator":
        return [folder / "kubeflow.org_pytorchjobs.yaml"]
    return sorted(folder.glob("kubeflow.org_*.yaml"))


def _wait_established(api: Api, name: str) -> None:
    wait_for(
        lambda: "True" in [c["status"] for c in _conditions(api, name) if c["type"] == "Established"],
        f"definition {name} to be served",
    )


def _conditions(api: Api, name: str) -> list[dict[str, str]]:
    found = api.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}") or {}
    return list((found.get("status") or {}).get("conditions") or [])
