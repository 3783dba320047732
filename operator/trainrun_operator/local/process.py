"""Processes of this machine: who they are, whether they live, and how to end a whole tree of them.

A pid alone names nobody, since numbers are used again: a process is its pid and its start time.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROC = Path("/proc")


@dataclass(frozen=True)
class ProcessId:
    """A process for ever: pid, start in clock ticks since boot, and the boot."""

    pid: int
    start_ticks: int
    boot: str

    def to_json(self) -> dict[str, Any]:
        """For the record on disk."""
        return {"pid": self.pid, "start_ticks": self.start_ticks, "boot": self.boot}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> ProcessId:
        """From the record on disk."""
        return cls(int(raw["pid"]), int(raw["start_ticks"]), str(raw["boot"]))

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """Identity of a living process; None if there is none (a zombie has ended)."""
        stat = _stat(pid)
        return cls(pid, int(stat[21]), _boot()) if stat is not None and stat[2] not in "ZX" else None

    def is_alive(self) -> bool:
        """Whether exactly this process still runs."""
        return ProcessId.of(self.pid) == self

    def open_pidfd(self) -> int | None:
        """A descriptor that turns readable when the process ends; None if it has ended."""
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if self.is_alive():
            return fd
        os.close(fd)
        return None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still is this process."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def session_members(leader: int) -> list[int]:
    """Living processes of a session, and their descendants that left it."""
    parents: dict[int, int] = {}
    members: set[int] = set()
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        stat = _stat(int(entry.name))
        if stat is None or stat[2] in "ZX":
            continue
        pid = int(entry.name)
        parents[pid] = int(stat[3])
        if int(stat[5]) == leader:
            members.add(pid)
    grew = True
    while grew:
        more = {pid for pid, parent in parents.items() if parent in members} - members
        members |= more
        grew = bool(more)
    return sorted(members)


def kill_session(leader: ProcessId) -> None:
    """SIGKILL a whole session until nothing of it is left: a member may fork between look and blow.

    The kernel gives a pid to nobody else while a session carries it, so a stranger under the leader's pid
    means that the session is empty.
    """
    for _ in range(50):
        present = ProcessId.of(leader.pid)
        if present is not None and present != leader:
            return
        members = session_members(leader.pid)
        if not members:
            return
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.sched_yield()


def find_leader(variable: str, value: str) -> ProcessId | None:
    """The session leader whose environment has `variable=value`; None if there is none."""
    wanted = f"{variable}={value}".encode()
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        stat = _stat(int(entry.name))
        if stat is None or stat[2] in "ZX" or stat[5] != entry.name:
            continue
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                return ProcessId.of(int(entry.name))
    return None


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat, indexed as in proc(5) minus one; the command name may hold anything."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    head, _, tail = text.rpartition(")")
    pid_text, _, name = head.partition("(")
    return [pid_text.strip(), name, *tail.split()]


def _boot() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()
