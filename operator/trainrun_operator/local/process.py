"""Processes of this machine: who they are, whether they live, and how to end a whole tree of them.

A pid alone names nobody, since numbers are used again: a process is its pid and its start time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROC = Path("/proc")
HALT_SECONDS = 5.0
"""A stop is carried out when the process runs next; only one stuck in the kernel takes longer."""


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


@dataclass(frozen=True)
class Tree:
    """All processes of one pod: the leader's session, its descendants, and whoever carries the mark.

    The agent's keeper makes a session of its own and may outlive its parent for a moment, so neither session nor
    parenthood is enough; the mark is a variable with which the leader was started.
    """

    leader: ProcessId
    variable: str
    value: str

    def members(self) -> list[int]:
        """Pids of the living members."""
        parents: dict[int, int] = {}
        members: set[int] = set()
        is_reused = ProcessId.of(self.leader.pid) not in (None, self.leader)
        for pid, stat in _processes():
            parents[pid] = int(stat[3])
            in_session = not is_reused and int(stat[5]) == self.leader.pid
            if in_session or environment_value(pid, self.variable) == self.value:
                members.add(pid)
        grew = True
        while grew:
            more = {pid for pid, parent in parents.items() if parent in members} - members
            members |= more
            grew = bool(more)
        return sorted(members - {os.getpid()})

    def kill(self) -> None:
        """SIGKILL until nothing is left: a member may fork between look and blow."""
        for _ in range(50):
            members = self.members()
            if not members:
                return
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            os.sched_yield()


def find_leader(variable: str, value: str) -> ProcessId | None:
    """The first session leader that was started with `variable=value`; None if none lives."""
    leaders = [
        ProcessId(pid, int(stat[21]), _boot())
        for pid, stat in _processes()
        if int(stat[5]) == pid and environment_value(pid, variable) == value
    ]
    return min(leaders, key=lambda leader: leader.start_ticks, default=None)


def halt(pid: int) -> None:
    """SIGSTOP, and wait until the kernel has stopped it: a busy machine takes its time."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + HALT_SECONDS
    while time.monotonic() < deadline:
        stat = _stat(pid)
        if stat is None or stat[2] in "TtZX":
            return
        time.sleep(0.001)


def _processes() -> Iterator[tuple[int, list[str]]]:
    """Living processes with their stat fields."""
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            stat = _stat(int(entry.name))
            if stat is not None and stat[2] not in "ZX":
                yield int(entry.name), stat


def environment_value(pid: int, variable: str) -> str | None:
    """A variable with which a process was started; None when there is none, or the process is not ours to see."""
    try:
        raw = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    prefix = f"{variable}=".encode()
    return next((part[len(prefix) :].decode() for part in raw.split(b"\0") if part.startswith(prefix)), None)


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
