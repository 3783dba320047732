"""The operator as a process of its own, with nothing but its own rights."""

from __future__ import annotations

import http.client
import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

from tests.controlplane.control_plane import ROOT
from tests.controlplane.forked import Fork
from tests.controlplane.processes import Child, Process, free_ports
from tests.controlplane.rights import OWN_NAMESPACE

PARTS = ("api", "operator", "trainer")


class ForkedProcess(Process):
    """Its command are the operator's arguments."""

    def _launch(self) -> Child:
        return Fork(self._command, self._env or {}, self.log)


class OperatorProcess:
    """`python -m trainrun_operator` beside the cluster, for one namespace or, with None, for all; or a fork of it."""

    def __init__(
        self, folder: Path, kubeconfig: Path, namespace: str | None, name: str, *options: str, is_forked: bool = False
    ) -> None:
        (self.port,) = free_ports(1)
        env = {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in PARTS)}
        arguments = [
            "--host", "127.0.0.1", "--port", str(self.port), "--own-namespace", OWN_NAMESPACE,
            *(["--namespace", namespace] if namespace else []), *options,
        ]  # fmt: skip
        kind = ForkedProcess if is_forked else Process
        command = arguments if is_forked else [sys.executable, "-m", "trainrun_operator", *arguments]
        self.process = kind(f"{namespace}-{name}" if namespace else name, command, folder, env={**os.environ, **env})

    def wait_ready(self) -> None:
        """Until it answers."""
        self.process.wait_until(lambda: self.get("/healthz") == "ok\n", "healthy")

    def get(self, path: str) -> str:
        """An answer of its HTTP server; empty if there is none, or only a part of one."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return str(answer.read().decode())
        except (OSError, http.client.HTTPException):
            return ""

    def lines(self) -> list[dict[str, Any]]:
        """Its log."""
        return [json.loads(line) for line in self.process.log.read_text().splitlines() if line.startswith("{")]
