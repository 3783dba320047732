"""What real nodes need of this machine, and the places where they leave something.

Everything made outside of a node's own namespaces has one exact name, written here and in `network.py`: a session
removes what it finds under these names before it starts (a crashed one's remains) and when it ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.controlplane.binaries import cache

LANE = os.environ.get("TRAINRUN_NODES_LANE", "")
"""Set by `soak.py` for each of several clusters at once, which also have a network and a /run of their own."""
RUN = Path("/run/trainrun-nodes")
"""Sockets and the session's lock; a socket's path must be short."""
CGROUP = f"trainrun-nodes{LANE}"
"""One folder under each controller, a folder per node in it."""
CGROUPS = Path("/sys/fs/cgroup")
SOCKET = Path("/run/containerd/containerd.sock")
"""containerd's, on each node's own /run."""
IMAGES = cache().parent / "images"
WORK = cache().parent / f"nodes{LANE}"
"""On one file system with IMAGES: nodes get their images by hard links."""

PACKAGES = {
    "debootstrap": "debootstrap",
    "containerd": "containerd",
    "runc": "runc",
    "buildah": "buildah",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ethtool": "ethtool",
    "socat": "socat",
    "ip": "iproute2",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/usr/share/containers/containers.conf": "golang-github-containers-common",
}
"""What is looked for, and the Debian package that brings it."""
INSTALL_SECONDS = 300


class Unavailable(Exception):
    """Says why the layer cannot run here."""


def ensure_machine() -> None:
    """Root, cgroups of version 1, and the Debian packages, which are installed when missing. Raises Unavailable."""
    if os.geteuid() != 0:
        raise Unavailable("real nodes need root: they make namespaces, mounts and cgroups")
    if not (CGROUPS / "memory" / "tasks").exists():
        raise Unavailable("the node harness is written for cgroups of version 1, which this machine does not have")
    missing = sorted(
        {package for what, package in PACKAGES.items() if shutil.which(what) is None and not _is_file(what)}
    )
    if missing:
        _install(missing)


def _is_file(what: str) -> bool:
    return what.startswith("/") and Path(what).exists()


def _install(packages: list[str]) -> None:
    if shutil.which("apt-get") is None:
        raise Unavailable(f"{', '.join(packages)} must be installed; there is no apt-get to do it")
    print(f"nodes: installing {' '.join(packages)}", flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", "-qq", *command], env=env, capture_output=True, text=True, timeout=INSTALL_SECONDS
        )
        if done.returncode != 0:
            raise Unavailable(f"apt-get {command[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}")


def call(*command: str, quiet: bool = False) -> str:
    """Run it to its end and return what it prints. Raises AssertionError with its words; quiet: failing is fine."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert quiet or done.returncode == 0, f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-2000:]}"
    return done.stdout
