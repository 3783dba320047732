"""A whole life cycle as stages of one run: each once, faults in between, and only what changed again."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.local.conftest import marked
from tests.local.story import TRAINRUN, Story, train, write_manifest

pytestmark = pytest.mark.timeout(900)

SETS = {"a": {"prepared": "stage:texts/data", "source": "a", "max_documents": 8}}
STAGES: list[dict[str, Any]] = [
    {"name": "texts", "kind": "prepare"},
    {"name": "base", "kind": "train", "config": {"total_steps": 20}},
    {
        "name": "tuned",
        "kind": "train",
        "workers": {"replicas": 1},
        "config": {
            "model": {"path": "stage:base"},
            "data": {"tokenizer": {"path": "stage:base"}, "mix": {"a": 0.0, "b": 1.0}},
            "total_steps": 10,
        },
    },
    {"name": "merged", "kind": "merge", "config": {"method": "linear", "models": ["stage:base", "stage:tuned"]}},
    {"name": "whole", "kind": "consolidate", "config": {"checkpoint": "stage:base/checkpoints", "step": 10}},
    {
        "name": "measured",
        "kind": "evaluate",
        "config": {"model": "stage:merged", "baseline": "stage:base", "perplexity": SETS},
    },
    {"name": "page", "kind": "report", "config": {"title": "What tuning did"}},
]


def chained(change: Callable[[list[dict[str, Any]]], None] = lambda stages: None) -> Callable[[dict[str, Any]], None]:
    """The manifest with these stages."""

    def apply(manifest: dict[str, Any]) -> None:
        manifest["spec"]["stages"] = json.loads(json.dumps(STAGES))
        change(manifest["spec"]["stages"])

    return apply


def explained(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`trainrun explain-step`."""
    return subprocess.run([*TRAINRUN, "explain-step", *arguments], capture_output=True, text=True, check=False)


def records(story: Story) -> dict[str, dict[str, Any]]:
    """What each stage says of itself."""
    found = story.folder.glob("checkpoints/stages/*/stage.json")
    return {record["name"]: record for record in (json.loads(path.read_text()) for path in found)}


def test_a_life_cycle_runs_once_and_only_what_changed_runs_again(tmp_path: Path, workdir: Path) -> None:
    """A worker dies in the first training, a node in the second; then another number of tuning steps is asked for."""
    file = write_manifest(tmp_path / "here", chained())
    code, out, err = train(file, workdir, "--fault", "kill-worker@step=7", "--fault", "lose-node@step=13")
    assert code == 0, out + err
    story = Story(workdir / "tiny")
    status, made = story.status(), records(story)
    assert [done["name"] for done in status["stages"]] == [stage["name"] for stage in STAGES[:-1]]
    assert status["stage"] == "page"
    assert {record["state"] for record in made.values()} == {"done"}
    steps = [(line["stage"], line["step"]) for line in story.metrics()]
    assert steps == [("base", n) for n in range(1, 21)] + [("tuned", n) for n in range(1, 11)]
    page = story.folder / "checkpoints" / made["page"]["result"] / "report.html"
    assert "What tuning did" in page.read_text()
    assert json.loads((story.folder / "manifest.json").read_text())["results"]["stages"]
    assert [a["cause"] for a in status["attempts"] if a["stage"] == "base"] == ["NodeLost", "Done"]
    told = explained("7", "--stage", "base", "--workdir", str(workdir))
    assert told.returncode == 0 and "proved: the 20 steps that the run reports" in told.stdout, told
    told = explained("7", "--workdir", str(workdir))
    assert told.returncode == 1 and told.stderr.endswith("give --stage base or tuned\n"), told

    def longer(stages: list[dict[str, Any]]) -> None:
        stages[2]["config"]["total_steps"] = 14

    code, out, err = train(write_manifest(tmp_path / "here", chained(longer)), workdir)
    assert code == 0, out + err
    assert "begins anew; stages that are complete" in out
    again = records(story)
    same = {name for name in made if again[name]["claim"] == made[name]["claim"]}
    assert same == {"texts", "base", "whole"}, "what does not depend on the change is not done again"
    assert again["tuned"]["folder"] == made["tuned"]["folder"], "four more steps, not fourteen"
    assert [line["step"] for line in story.metrics() if line["stage"] == "tuned"] == list(range(1, 15))
    assert marked(workdir) == []


def test_a_stage_that_cannot_work_is_told_with_its_field(tmp_path: Path, workdir: Path) -> None:
    """Before anything starts."""

    def wrong(stages: list[dict[str, Any]]) -> None:
        stages[3]["config"]["models"] = ["stage:base", "stage:late"]

    code, out, err = train(write_manifest(tmp_path, chained(wrong)), workdir)
    assert code == 20, out + err
    assert "spec.stages[merged].config.models[1]=stage:late names no earlier stage; use stage:texts" in err
    assert not (workdir / "tiny").exists()
