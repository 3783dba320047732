"""Child processes that end with their owner, whatever happens to it."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

POLL_SECONDS = 0.05
STOP_SECONDS = 10.0
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Child(Protocol):
    """What is asked of a child: the part of `subprocess.Popen` that a fork can offer, too."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Process:
    """A program with its log; a context manager that ends it by pid."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = command
        self._env = env
        self._cwd = cwd
        self._child: Child | None = None

    def __enter__(self) -> Process:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start it; output is appended to the log."""
        self._child = self._launch()

    def _launch(self) -> Child:
        parent = os.getpid()

        def die_with_parent() -> None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self._env, cwd=self._cwd,
                start_new_session=True, preexec_fn=die_with_parent,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """Of the living child."""
        assert self._child is not None
        return self._child.pid

    def has_ended(self) -> bool:
        """Whether it runs no longer."""
        return self._child is None or self._child.poll() is not None

    def kill(self) -> None:
        """SIGKILL, as a dying machine would."""
        assert self._child is not None
        self._child.kill()
        self._child.wait()

    def stop(self) -> int:
        """SIGTERM, then SIGKILL after 10 s; the exit status."""
        assert self._child is not None
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._child.kill()
        return self._child.wait()

    def wait_until(self, is_ready: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
        """Poll until it is so; an AssertionError with the log's end if it ends or takes longer."""
        deadline = time.monotonic() + seconds
        while not is_ready():
            assert self._child is not None
            ended = self._child.poll()
            if ended is not None or time.monotonic() > deadline:
                why = f"ended with {ended}" if ended is not None else f"is not {what} after {seconds:.0f} s"
                raise AssertionError(f"{self.name} {why}; its log ends with:\n{self.tail()}")
            time.sleep(POLL_SECONDS)

    def tail(self, characters: int = 3000) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-characters:]


class KeptAlive:
    """A context manager around a process: whenever it ends, it is started again, as a kubelet or an init would."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.deaths = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._restart, name=f"keeps {process.name}")

    def __enter__(self) -> KeptAlive:
        self.process.start()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()
        self.process.stop()

    def _restart(self) -> None:
        while not self._stopping.wait(POLL_SECONDS):
            if self.process.has_ended():
                self.deaths += 1
                self.process.start()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
