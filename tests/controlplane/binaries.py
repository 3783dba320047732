"""The control plane's programs, built once from pinned Go modules and kept outside the checkout.

Each tool is a Go module of its own under tests/tools (their versions conflict), with every dependency in its go.sum.
A binary's name carries a hash of its module files, and of our own source where there is some, so a changed pin is a new
binary. Built programs and Go's own caches are shared by all checkouts of a user.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

TOOLS = Path(__file__).parents[1] / "tools"
KUBERNETES = "1.33.4"
GO_NICENESS = 10
"""Builds take minutes of all cores; whoever works beside them shall not notice."""


class BuildError(Exception):
    """Says why the layer cannot run here."""


@dataclass(frozen=True)
class Tool:
    """A program and where its source is."""

    module: str
    package: str
    """"." is a program of our own, beside its go.mod."""
    flags: str = "-s -w"


def _kubernetes_flags() -> str:
    """The version that the API server reports."""
    parts = ["-s -w"]
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        values = {
            "gitVersion": f"v{KUBERNETES}",
            "gitMajor": "1",
            "gitMinor": "33",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
        }
        parts += [f"-X {package}.{name}={value}" for name, value in values.items()]
    return " ".join(parts)


TRAINING_OPERATOR = "github.com/kubeflow/training-operator/cmd/training-operator.v1"

PROGRAMS = {
    "etcd": Tool("etcd", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": Tool("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver", _kubernetes_flags()),
    "kube-controller-manager": Tool("kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager", _kubernetes_flags()),
    "kube-scheduler": Tool("kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler", _kubernetes_flags()),
    "kwok": Tool("kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    "training-operator-1.9.4": Tool("training-operator", TRAINING_OPERATOR),
    "training-operator-1.7.0": Tool("training-operator-1.7", TRAINING_OPERATOR),
    "gitops": Tool("gitops", "."),
}

NODE_PROGRAMS = {
    "kubelet": Tool("kubernetes", "k8s.io/kubernetes/cmd/kubelet", _kubernetes_flags()),
    "kube-proxy": Tool("kubernetes", "k8s.io/kubernetes/cmd/kube-proxy", _kubernetes_flags()),
    "coredns": Tool("coredns", "github.com/coredns/coredns"),
    "pause": Tool("pause", "."),
}
"""Only real nodes need them."""


def cache() -> Path:
    """The folder of built programs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "trainrun" / "bin"


def ensure(name: str) -> Path:
    """The program's path; builds it if it is not there. Raises BuildError."""
    tool, folder = (PROGRAMS | NODE_PROGRAMS)[name], cache()
    target = folder / f"{name}-{_fingerprint(tool)}"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two checkouts may want it at once
        if not target.exists():
            _build(name, tool, target)
    return target


def ensure_all() -> None:
    """Build whatever of the control plane is missing. Raises BuildError."""
    for name in PROGRAMS:
        ensure(name)


def module_folder(module: str, dependency: str) -> Path:
    """Where Go keeps the source of a dependency of one tool: manifests are taken from there."""
    listed = _go(["list", "-m", "-f", "{{.Dir}}", dependency], TOOLS / module)
    if not listed:
        _go(["mod", "download", dependency], TOOLS / module)
        listed = _go(["list", "-m", "-f", "{{.Dir}}", dependency], TOOLS / module)
    return Path(listed)


def _build(name: str, tool: Tool, target: Path) -> None:
    started = time.monotonic()
    print(f"control-plane: building {name} (minutes the first time, later runs reuse it)", flush=True)
    partial = target.with_suffix(".partial")
    _go(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", tool.flags, "-o", str(partial),
         tool.package], TOOLS / tool.module)  # fmt: skip
    partial.rename(target)
    print(f"control-plane: built {name} in {time.monotonic() - started:.0f} s", flush=True)


def _go(arguments: list[str], folder: Path) -> str:
    if shutil.which("go") is None:
        raise BuildError("the Go toolchain (1.26 or newer) is not installed; the control plane is built with it")
    env = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    done = subprocess.run(
        ["nice", "-n", str(GO_NICENESS), "go", *arguments], cwd=folder, env=env, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise BuildError(f"go {arguments[0]} in tests/tools/{folder.name} failed:\n{done.stderr[-2000:]}")
    return done.stdout.strip()


def _fingerprint(tool: Tool) -> str:
    digest = hashlib.sha256(f"{tool.package}\0{tool.flags}".encode())
    folder = TOOLS / tool.module
    for path in (folder / "go.mod", folder / "go.sum", *sorted(folder.glob("*.go"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


if __name__ == "__main__":  # before the tests, so that minutes of building count against no test's time-out
    try:
        ensure_all()
    except BuildError as problem:
        print(problem)  # the tests skip with the same words
