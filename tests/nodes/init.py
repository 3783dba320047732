"""The first process of a node, in network, mount and process namespaces of its own: mounts, then three daemons.

    python -m tests.nodes.init NODE_FOLDER

What it mounts and starts ends with it. It must leave the machine as it is: /run, /var/lib and the logs are
the node's, and the kernel's tunables that kubelet insists on writing are plain files here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.controlplane.waiting import wait_for
from tests.nodes import cgroups
from tests.nodes.machine import SOCKET

OWN = {"varlog": "/var/log", "kubelet": "/var/lib/kubelet", "cni-state": "/var/lib/cni"}
"""Folders of the node, and where its programs look for them."""
RESTART_SECONDS = 1.0
TUNABLES = {"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"}


def main(folder: Path) -> None:
    """Become the node; never returns."""
    node = json.loads((folder / "node.json").read_text())
    cgroups.join(node["name"])
    _mount(folder)
    running = {}
    for name, command in node["daemons"].items():
        running[name] = _start(folder, name, command)
        if name == "containerd":
            wait_for(SOCKET.exists, "containerd to listen")  # kubelet does not wait for it
    while True:  # orphans of the whole node end up here
        pid, _ = os.wait()
        name = next((name for name, daemon in running.items() if daemon.pid == pid), "")
        if name:  # kubelet gives up when containerd listens but is not ready yet; a machine would start it again, too
            time.sleep(RESTART_SECONDS)
            running[name] = _start(folder, name, node["daemons"][name])


def _start(folder: Path, name: str, command: list[str]) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _mount(folder: Path) -> None:
    call = subprocess.check_call
    call(["mount", "--make-rshared", "/"])  # kubelet's mounts must reach containerd's; the machine's are out of reach
    call(["mount", "-t", "tmpfs", "trainrun-node", "/run"])
    Path("/run/netns").mkdir()
    call(["mount", "-t", "tmpfs", "trainrun-node", "/var/lib"])  # so that no mount point is made on the machine
    for name, target in OWN.items():
        (folder / name).mkdir(exist_ok=True)
        Path(target).mkdir(parents=True, exist_ok=True)
        call(["mount", "--bind", str(folder / name), target])
    for name, value in TUNABLES.items():
        file = folder / name.replace("/", "-")
        file.write_text(f"{value}\n")
        call(["mount", "--bind", str(file), f"/proc/sys/{name}"])
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")  # of this network namespace


if __name__ == "__main__":
    main(Path(sys.argv[1]))
