"""The operator as a process of its own, with nothing but its own rights."""

from __future__ import annotations

import json
import os
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.controlplane.control_plane import ROOT
from tests.controlplane.processes import Process, free_ports
from tests.controlplane.rights import OWN_NAMESPACE

LOOK_SECONDS = 0.1


class OperatorProcess:
    """`python -m trainrun_operator` beside the cluster, for one namespace or, with None, for all."""

    def __init__(self, folder: Path, kubeconfig: Path, namespace: str | None, name: str, *options: str) -> None:
        (self.port,) = free_ports(1)
        env = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("api", "operator", "trainer")),
        }
        command = [
            sys.executable, "-m", "trainrun_operator", "--host", "127.0.0.1", "--port", str(self.port),
            "--own-namespace", OWN_NAMESPACE, *(["--namespace", namespace] if namespace else []), *options,
        ]  # fmt: skip
        self.process = Process(f"{namespace}-{name}" if namespace else name, command, folder, env=env)

    def wait_ready(self) -> None:
        """Until it answers."""
        self.process.wait_until(lambda: self.get("/healthz") == "ok\n", "healthy")

    def get(self, path: str) -> str:
        """An answer of its HTTP server; empty if there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def lines(self) -> list[dict[str, Any]]:
        """Its log."""
        return [json.loads(line) for line in self.process.log.read_text().splitlines() if line.startswith("{")]


class KeptAlive:
    """As a kubelet does it: whenever the process ends, it is started again."""

    def __init__(self, operator: OperatorProcess) -> None:
        self.operator = operator
        self.deaths = 0
        self._stopping = threading.Event()

    @contextmanager
    def running(self) -> Iterator[KeptAlive]:
        """While the block lasts."""
        with self.operator.process:
            thread = threading.Thread(target=self._restart, name="kubelet")
            thread.start()
            try:
                yield self
            finally:
                self._stopping.set()
                thread.join()

    def _restart(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            if self.operator.process.has_ended():
                self.deaths += 1
                self.operator.process.start()
