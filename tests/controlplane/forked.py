"""Operators as forks of one process that has imported them: a start costs 0.1 s of CPU time instead of 2 s.

Each is a process of its own all the same, with its own signals, log and end. `python -m trainrun_operator` from nothing
is what tests/operator/kube/test_process.py, `make dev-cluster` and the layer of real nodes start.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.mortal import end_with_the_tests

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["pytest", "trainrun_operator.__main__", "tests.controlplane.forked"])


class Fork:
    """An operator in a fork, with what `subprocess.Popen` offers of a child."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self._process = _context.Process(target=_operate, args=(list(arguments), dict(env), str(log)))
        self._process.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Until it ends. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("trainrun_operator", timeout or 0.0)
        return self._process.exitcode

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()


def _operate(arguments: list[str], env: dict[str, str], log: str) -> None:
    """In the fork."""
    end_with_the_tests()
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.update(env)
    random.seed()  # or all of them would draw the same jitter

    from kubernetes.config import kube_config
    from trainrun_operator.__main__ import main

    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = env["KUBECONFIG"]  # it was read when the module was imported

    sys.exit(main(arguments))
