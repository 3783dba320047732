"""Runs and the PyTorchJobs that they become, as files: `python -m tests.operator.golden_files` writes them anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from trainrun_api.contract import GROUP
from trainrun_operator.core.pytorchjob import render

FOLDER = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Golden:
    """One pair of files."""

    name: str
    attempt: int
    replicas: int
    excluded: list[str]
    run: dict[str, Any]

    @property
    def job_file(self) -> Path:
        return FOLDER / f"{self.name}.job.yaml"

    def rendered(self) -> dict[str, Any]:
        return render(self.run, self.attempt, self.excluded, self.replicas)

    def as_text(self) -> str:
        return yaml.dump(self.rendered(), Dumper=_Plain, sort_keys=False, width=110)


class _Plain(yaml.SafeDumper):
    """No anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def load_all() -> list[Golden]:
    """Every `*.run.yaml`, in order of name."""
    goldens = []
    for path in sorted(FOLDER.glob("*.run.yaml")):
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        raw["run"] = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "TrainingRun", **raw["run"]}
        goldens.append(Golden(name=path.name.removesuffix(".run.yaml"), **raw))
    return goldens


if __name__ == "__main__":
    for golden in load_all():
        golden.job_file.write_text(golden.as_text(), encoding="utf-8")
