"""The operator as a process of its own, with nothing but its own rights."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

from tests.controlplane.control_plane import ROOT
from tests.controlplane.processes import Process, free_ports
from tests.controlplane.rights import OWN_NAMESPACE


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
