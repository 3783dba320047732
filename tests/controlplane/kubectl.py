"""The real kubectl against a test's control plane, as a user would type it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chart.helm import FetchError, kubectl

TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Answer:
    """What one command printed."""

    code: int
    out: str
    err: str


class Kubectl:
    """Commands in one namespace; skips the test, with the reason, where kubectl cannot be had."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        try:
            self._program = kubectl()
        except FetchError as error:
            pytest.skip(str(error))
        self._env = {**os.environ, "KUBECONFIG": str(kubeconfig), "HOME": str(kubeconfig.parent)}
        self._namespace = namespace

    def __call__(self, *words: str) -> str:
        """What it printed; fails the test if it did not succeed."""
        answer = self.ask(*words)
        assert answer.code == 0, f"kubectl {' '.join(words)}: {answer.err}"
        return answer.out

    def ask(self, *words: str, text: str = "") -> Answer:
        """Whatever comes of it; `text` is its standard input."""
        command = [str(self._program), "--namespace", self._namespace, *words]
        done = subprocess.run(
            command, input=text, env=self._env, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
        return Answer(done.returncode, done.stdout, done.stderr)
