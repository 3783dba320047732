"""Kubeflow's training-operator as a process beside the control plane: 1.9.4 with its real webhook, or HyperPod's 1.7.0.

1.9 reads its certificate from a fixed folder, so it runs in a mount namespace of its own. Its rotator keeps a valid
certificate that it finds in the Secret: ours also names 127.0.0.1, and the API server reaches the webhook by URL.
"""

from __future__ import annotations

import base64
import fcntl
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import IO

from trainrun_operator.cluster import Object

from tests.controlplane.api import Api, ApiError
from tests.controlplane.binaries import cache, ensure
from tests.controlplane.control_plane import ControlPlane
from tests.controlplane.processes import Process, free_ports
from tests.controlplane.waiting import wait_for

NAMESPACE = "kubeflow"
SECRET = "training-operator-webhook-cert"
SERVICE_NAME = f"training-operator.{NAMESPACE}.svc"
AUTHORITY = "training-operator-ca"
SERVING = Path("/tmp/k8s-webhook-server")
"""Written into training-operator 1.9: each process sees its own folder there."""
_in_use: list[IO[str]] = []
"""The lock that this session shares with others; empty when it has none."""
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
WEBHOOK = "validator.training-operator.kubeflow.org"


def training_operator(plane: ControlPlane, version: str) -> Process:
    """A process to enter; call `wait_ready` after that."""
    metrics, probe, webhook = free_ports(3)
    folder = plane.folder / f"training-operator-{version}"
    folder.mkdir()
    command = [
        str(ensure(f"training-operator-{version}")),
        f"--kubeconfig={plane.kubeconfig()}",
        "--controller-threads=4",
        f"--metrics-bind-address=127.0.0.1:{metrics}",
        f"--health-probe-bind-address=127.0.0.1:{probe}",
    ]
    if version.startswith("1.7"):
        command.append("--enable-scheme=PyTorchJob")
    else:
        command += ["--enable-scheme=pytorchjob", f"--webhook-server-port={webhook}",
                    "--kube-api-qps=200", "--kube-api-burst=400"]  # fmt: skip
        _prepare_webhook(plane.api(), folder, webhook)
        command = [*_with_folder_at_serving(folder / "k8s-webhook-server"), *command]
    return Process(f"training-operator-{version}", command, plane.folder)


def _with_folder_at_serving(folder: Path) -> list[str]:
    """A prefix to a command, which becomes the same process."""
    _use_serving()
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--mount", *as_root, "sh", "-c", f'mount --bind "$0" {SERVING} && exec "$@"', str(folder)]


def _use_serving() -> None:
    """Make the mount point, and let other sessions know that it is in use."""
    if not _in_use:
        lock = (cache() / ".serving.lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_SH)
        _in_use.append(lock)
    SERVING.mkdir(exist_ok=True)


def tidy() -> None:
    """Take the mount point away, unless another session uses it: removing it would unmount theirs."""
    while _in_use:
        with _in_use.pop() as lock, suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            SERVING.rmdir()


def wait_ready(plane: ControlPlane, operator: Process, version: str) -> None:
    """Until the webhook's authority is known to the API server; 1.7 has none."""
    if not version.startswith("1.7"):
        operator.wait_until(lambda: _has_authority(plane.api()), "ready")


def _has_authority(api: Api) -> bool:
    configuration = api.get(f"{WEBHOOKS}/{WEBHOOK}")
    return bool(configuration["webhooks"][0]["clientConfig"].get("caBundle"))


def _prepare_webhook(api: Api, folder: Path, port: int) -> None:
    api.apply(
        f"/api/v1/namespaces/{NAMESPACE}", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    )
    _make_certificates(folder)
    serving = folder / "k8s-webhook-server" / "serving-certs"
    serving.mkdir(parents=True)
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (serving / name).write_bytes((folder / name).read_bytes())
    data = {n: base64.b64encode((folder / n).read_bytes()).decode() for n in ("tls.crt", "tls.key", "ca.crt", "ca.key")}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": NAMESPACE}, "data": data}
    api.create(f"/api/v1/namespaces/{NAMESPACE}/secrets", secret)
    webhook = {
        "name": "validator.pytorchjob.training-operator.kubeflow.org",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "clientConfig": {"url": f"https://127.0.0.1:{port}/validate-kubeflow-org-v1-pytorchjob"},
        "rules": [
            {
                "apiGroups": ["kubeflow.org"],
                "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE"],
                "resources": ["pytorchjobs"],
            }
        ],
    }
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    api.create(WEBHOOKS, {**kind, "metadata": {"name": WEBHOOK}, "webhooks": [webhook]})


def _make_certificates(folder: Path) -> None:
    """An authority, and a serving certificate for the service's name and for loopback; ten years, so that the rotator
    leaves them."""
    extensions = folder / "extensions"
    extensions.write_text(
        "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth\n"
        f"subjectAltName=DNS:{SERVICE_NAME},IP:127.0.0.1\n"
    )
    days = ["-days", "3650"]
    authority = ["-subj", f"/O=training-operator/CN={AUTHORITY}"]
    usage = ["-addext", "keyUsage=critical,keyCertSign,digitalSignature", "-addext", f"subjectAltName=DNS:{AUTHORITY}"]
    signed_by = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"]
    for arguments in (
        ["genrsa", "-traditional", "-out", "ca.key", "2048"],  # the rotator reads PKCS 1 only
        ["genrsa", "-traditional", "-out", "tls.key", "2048"],
        ["req", "-x509", "-new", "-key", "ca.key", "-out", "ca.crt", *days, *authority, *usage],
        ["req", "-new", "-key", "tls.key", "-out", "tls.csr", "-subj", f"/CN={SERVICE_NAME}"],
        ["x509", "-req", "-in", "tls.csr", *signed_by, "-out", "tls.crt", *days, "-extfile", "extensions"],
    ):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def wait_served(api: Api) -> None:
    """Until the API server accepts a PyTorchJob through the webhook (dry run)."""
    job: Object = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "probe", "namespace": "default"},
        "spec": {
            "pytorchReplicaSpecs": {
                "Worker": {"template": {"spec": {"containers": [{"name": "pytorch", "image": "x"}]}}}
            }
        },
    }
    path = "/apis/kubeflow.org/v1/namespaces/default/pytorchjobs?dryRun=All"
    wait_for(lambda: _is_accepted(api, path, job), "the webhook to answer")


def _is_accepted(api: Api, path: str, job: Object) -> bool:
    try:
        api.create(path, job)
    except ApiError as error:
        if error.code == 500:  # the webhook does not listen yet
            return False
        raise
    return True
