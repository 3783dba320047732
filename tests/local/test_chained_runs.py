"""`trainrun run` of a run that starts from another one's result, in the same workdir."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.local.conftest import marked
from tests.local.story import Story, train, write_manifest

pytestmark = pytest.mark.timeout(600)


def tuned(manifest: dict[str, Any]) -> None:
    """A run that starts from the result of `base`, on one of its two sources."""
    spec = manifest["spec"]
    manifest["metadata"]["name"] = "tuned"
    spec["resume"] = {"from": "Run", "run": "base"}
    spec["checkpoint"]["path"] = "/checkpoints/tuned"
    spec["config"] |= {"model": {}, "total_steps": 10}
    spec["config"]["data"] |= {"tokenizer": {}, "mix": {"a": 1.0, "b": 0.0}}


def test_one_run_after_the_other(tmp_path: Path, workdir: Path) -> None:
    """Without the first one the second is refused in a sentence; with it, its first loss is the other's last."""

    def shorter(manifest: dict[str, Any]) -> None:
        manifest["metadata"]["name"] = "base"
        manifest["spec"]["config"]["total_steps"] = 20

    first, second = write_manifest(tmp_path / "first", shorter), write_manifest(tmp_path / "second", tuned)
    code, out, err = train(second, workdir)
    assert code == 20, out + err
    assert f"spec.resume.run=base is not there in {workdir}; run it there first" in err
    for file in (first, second):
        code, out, err = train(file, workdir)
        assert code == 0, out + err
    base, story = Story(workdir / "base"), Story(workdir / "tuned")
    evaluated = {line["step"]: line["eval"] for line in base.metrics() if line.get("eval")}
    begun = next(json.loads(line) for line in _lines(story) if '"eval"' in line and json.loads(line)["step"] == 0)
    assert begun["eval"] == evaluated[20]
    assert story.status()["parent"]["run"] == "base"
    told = json.loads((story.folder / "checkpoints" / "export" / "lineage.json").read_text())
    assert told["parent"]["state_digest"] == base.digests()[20]
    assert marked(workdir) == []


def test_a_run_after_a_run_of_stages(tmp_path: Path, workdir: Path) -> None:
    """It starts from the last stage that makes a model, whose tensors it has at step 0."""

    def stages(manifest: dict[str, Any]) -> None:
        manifest["metadata"]["name"] = "base"
        manifest["spec"]["config"]["total_steps"] = 5
        manifest["spec"]["stages"] = [
            {"name": "texts", "kind": "train"},
            {"name": "whole", "kind": "consolidate", "config": {"checkpoint": "stage:texts/checkpoints", "step": 0}},
            {"name": "page", "kind": "report"},
        ]

    for name, change in (("first", stages), ("second", tuned)):
        code, out, err = train(write_manifest(tmp_path / name, change), workdir)
        assert code == 0, out + err
    whole = workdir / "base" / "checkpoints" / "stages" / "whole"
    made = json.loads((whole / "stage.json").read_text())["result"]
    told = json.loads((workdir / "tuned" / "checkpoints" / "export" / "lineage.json").read_text())
    assert told["parent"]["step"] == 0
    assert told["config"]["model"]["path"] == str(workdir / "base" / "checkpoints" / made)
    assert Story(workdir / "tuned").status()["parent"]["stage"] == "whole"


def _lines(story: Story) -> list[str]:
    """What the trainer wrote, the evaluation of step 0 included."""
    return [
        line
        for path in sorted(story.folder.glob("checkpoints/metrics/c*.jsonl"))
        for line in path.read_text().split("\n")
    ]
