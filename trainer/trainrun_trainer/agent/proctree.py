"""The process tree of this pod: who belongs to it, how it is ended, who inherits orphans. Linux's own calls.

Where the kernel lacks a call (or is not Linux) the function says so by returning False or nothing; it never raises.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import Dict, List, Optional

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
KILL_SECONDS = 1.5
"""How long `kill_descendants` goes on: no worker lives 2 s longer than its agent."""


def _prctl(option: int, value: int) -> bool:
    try:
        return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def adopt_orphans() -> bool:
    """Become the parent of orphaned descendants, as PID 1 is by nature."""
    return _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> bool:
    """Ask the kernel to kill this process when the thread that started it ends."""
    return _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def parents() -> Dict[int, int]:
    """Parent of each process of this machine (or container); zombies are left out."""
    found: Dict[int, int] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return found
    for name in names:
        if not name.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % name, "rb") as handle:
                state, parent = handle.read().rpartition(b")")[2].split()[:2]  # a command's name may hold spaces
        except (OSError, ValueError):
            continue  # it ended while we looked
        if state != b"Z":
            found[int(name)] = int(parent)
    return found


def descendants(root: int, parent_of: Optional[Dict[int, int]] = None) -> List[int]:
    """Living processes below `root`, parents before children."""
    children: Dict[int, List[int]] = {}
    for pid, parent in (parents() if parent_of is None else parent_of).items():
        children.setdefault(parent, []).append(pid)
    found = list(children.get(root, ()))
    for pid in found:  # grows while we walk: breadth first
        found.extend(children.get(pid, ()))
    return found


def kill_descendants(root: int, limit_seconds: float = KILL_SECONDS) -> List[int]:
    """SIGKILL everything below `root` until nothing is left or the limit is over; what is left is returned.

    Looks again after each round, since a process may have forked while we read. Reaps what becomes ours.
    """
    end = time.monotonic() + limit_seconds
    while True:
        alive = descendants(root)
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        reap()
        if not alive or time.monotonic() > end:
            return alive
        time.sleep(0.01)


def reap() -> Dict[int, int]:
    """Collect ended children without waiting: pid -> exit code, or minus the signal."""
    ended: Dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
