"""Starts agents as pods of one run on this machine, and ends every process of theirs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainrun_trainer.agent import proctree

from tests.controlplane.processes import free_ports

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 90.0


def small_launcher(
    entry: str = "tests.agent.small_worker:run", preload: str = "trainrun_trainer.launcher_group"
) -> list[str]:
    """Our launcher with a worker that needs no model."""
    return [sys.executable, "-m", "trainrun_trainer.launcher", "--entry", entry, "--preload", preload]


class Pod:
    """One agent process and its files."""

    def __init__(self, folder: Path, command: list[str], env: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = int(env["TRAINRUN_AGENT_PORT"])
        self.progress_dir = folder / "progress"
        self.message_path = folder / "termination.json"
        self.log_path = folder / "log"
        settings = {
            "PYTHONPATH": str(ROOT),
            "TRAINRUN_RUN": "small",
            "TRAINRUN_ATTEMPT": "2",
            "TRAINRUN_AGENT_HOST": "127.0.0.1",
            "TRAINRUN_PROGRESS_DIR": str(self.progress_dir),
            "TRAINRUN_TERMINATION_LOG": str(self.message_path),
        }
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trainrun_trainer.agent", *(["--", *command] if command else [])],
                env={**os.environ, **settings, **env},
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=folder,
            )

    def wait(self, seconds: float = LIMIT_SECONDS) -> int:
        """Exit code of the agent; fails the test with the log when it does not end."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the agent did not end within {seconds} s; its log:\n{self.log()}") from None

    def message(self) -> dict[str, Any]:
        """The termination message."""
        found: dict[str, Any] = json.loads(self.message_path.read_text())
        return found

    def log(self) -> str:
        """What the pod printed."""
        return self.log_path.read_text(errors="replace")

    def file(self, name: str) -> dict[str, Any]:
        """A file of the progress folder, empty when it is not there."""
        try:
            found: dict[str, Any] = json.loads((self.progress_dir / name).read_text())
        except (OSError, ValueError):
            return {}
        return found

    def get(self, path: str) -> str:
        """Answer of the agent's HTTP server."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            text: str = answer.read().decode()
        return text

    def tree(self) -> list[int]:
        """Every living process below the agent."""
        return proctree.descendants(self.process.pid)

    def until(self, what: str, is_so: Callable[[], Any], seconds: float = LIMIT_SECONDS) -> Any:
        """Wait for something; fails the test with the log."""
        return until(f"{what}; its log:\n{self.log()}", is_so, seconds)

    def freeze(self) -> None:
        """Stop everything of this pod, as a node that vanishes: nothing is said, nothing is closed."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """The node is back, with the pod as it was."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        for pid in [*self.tree(), self.process.pid]:
            with_no_process(lambda pid=pid: os.kill(pid, number))

    def close(self) -> None:
        """End what is left of this pod."""
        left = [*self.tree(), self.process.pid] if self.process.poll() is None else []
        for pid in left:
            with_no_process(lambda pid=pid: os.kill(pid, signal.SIGKILL))
        self.process.wait(10)


def with_no_process(act: Callable[[], None]) -> None:
    """Do something to a process that may be gone."""
    try:
        act()
    except ProcessLookupError:
        return


def until(what: str, is_so: Callable[[], Any], seconds: float = LIMIT_SECONDS) -> Any:
    """Poll until something holds and return it. The last look begins after the end: who waits may be held up, too."""
    end = time.monotonic() + seconds
    while True:
        is_last = time.monotonic() >= end
        found = is_so()
        if found:
            return found
        assert not is_last, f"within {seconds} s not: {what}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """A running process, not a zombie."""
    return pid in proctree.parents()


@contextmanager
def started(
    folder: Path, command: list[str], pods: int = 1, workers: int = 1, spares: int = 0, **env: str
) -> Iterator[list[Pod]]:
    """Pods of one group on this machine, spares last, all ended on leaving; `env` is added to each."""
    port, *ports = free_ports(1 + pods + spares)
    group = {
        "PET_RDZV_BACKEND": "c10d",
        "PET_RDZV_ENDPOINT": f"127.0.0.1:{port}",
        "PET_RDZV_ID": f"{folder.name}-a2",
        "PET_NNODES": f"{pods}:{pods}",
        "PET_NPROC_PER_NODE": str(workers),
        "TRAINRUN_REPLICAS": str(pods),
        "TRAINRUN_SPARES": str(spares),
        "TRAINRUN_PEERS": ",".join(f"127.0.0.1:{p}" for p in ports),
    }
    made: list[Pod] = []
    try:
        for index in range(pods + spares):
            own = {"TRAINRUN_POD_INDEX": str(index), "TRAINRUN_AGENT_PORT": str(ports[index])}
            made.append(Pod(folder / f"pod{index}", command, {**group, **own, **env}))
        yield made
    finally:
        for pod in made:
            pod.close()
