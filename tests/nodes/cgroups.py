"""One cgroup per node under each controller: all of a node can be frozen, counted and ended at once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from tests.controlplane.waiting import wait_for
from tests.nodes.machine import CGROUP, CGROUPS

CONTROLLERS = ("blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids", "systemd", "unified")
"""Some machines have no "unified", where runc also makes a folder."""
REMOVE_SECONDS = 10.0


def make(node: str) -> None:
    """The node's folders; kubelet makes those of its pods below them."""
    for controller in (one for one in CONTROLLERS if (CGROUPS / one).is_dir()):
        for folder in (CGROUPS / controller / CGROUP, CGROUPS / controller / CGROUP / node):
            folder.mkdir(exist_ok=True)
            if controller == "cpuset":  # a new one has neither, and then takes no process
                for name in ("cpuset.cpus", "cpuset.mems"):
                    (folder / name).write_text((folder.parent / name).read_text())


def join(node: str) -> None:
    """Put the calling process, and what it will start, under the node's freezer."""
    (CGROUPS / "freezer" / CGROUP / node / "tasks").write_text("0")


def freeze(node: str, frozen: bool) -> None:
    """Stop or continue everything on the node, as a hypervisor does with a machine."""
    state = CGROUPS / "freezer" / CGROUP / node / "freezer.state"
    wanted = "FROZEN" if frozen else "THAWED"
    state.write_text(wanted)
    wait_for(lambda: state.read_text().strip() == wanted, f"{node} to be {wanted}")


def groups(folder: Path) -> Iterator[Path]:
    """A cgroup and those below it. `os.walk` passes over one that is removed meanwhile; `Path.rglob` raises."""
    for path, _, _ in os.walk(folder):
        yield Path(path)


def processes(folder: Path) -> list[int]:
    """All processes in a cgroup and below it."""
    found: list[int] = []
    for group in groups(folder):
        try:
            found += [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
        except OSError:  # gone meanwhile
            continue
    return found


def remove(node: str) -> None:
    """Remove the node's folders, depth first; its processes have been killed and may still be on their way out."""
    for controller in CONTROLLERS:
        folder = CGROUPS / controller / CGROUP / node
        if controller == "freezer" and folder.exists():
            freeze(node, False)  # the frozen do not die
        deadline = time.monotonic() + REMOVE_SECONDS
        while folder.exists() and not _removed(folder):
            assert time.monotonic() < deadline, f"{folder} has processes left: {processes(folder)}"
            time.sleep(0.05)


def remove_all() -> None:
    """Everything under our name."""
    for node in {folder.name for folder in CGROUPS.glob(f"*/{CGROUP}/*/")}:
        remove(node)
    for controller in CONTROLLERS:
        if (CGROUPS / controller / CGROUP).exists():
            (CGROUPS / controller / CGROUP).rmdir()


def _removed(folder: Path) -> bool:
    try:
        for inner in sorted(folder.rglob("*/"), reverse=True):
            inner.rmdir()
        folder.rmdir()
    except OSError:
        return False
    return True
