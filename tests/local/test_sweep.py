"""`trainrun sweep` (S0-02): the runs, their table and page; stopped and begun again, nothing runs twice."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from trainrun_api.page.words import figure

from tests.local.conftest import marked
from tests.local.story import LIMIT_SECONDS, NAME, TRAINRUN, write_manifest

pytestmark = pytest.mark.timeout(600)

STEPS = 4


def short(manifest: dict[str, Any]) -> None:
    """One worker, a few steps."""
    manifest["spec"]["workers"]["replicas"] = 1
    manifest["spec"]["config"] |= {"total_steps": STEPS, "eval": {"every_steps": STEPS, "max_rows_per_source": 2}}


def sweep(file: Path, workdir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    command = [*TRAINRUN, "sweep", str(file), "--workdir", str(workdir), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)


def test_a_sweep_ends_in_a_table_a_page_and_json(tmp_path: Path, workdir: Path) -> None:
    """Two mixes: the same text before, other perplexities after; a second time it only shows what it has."""
    file = write_manifest(tmp_path, short)
    done = sweep(file, workdir, "--over", "config.data.mix.b=0,3")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = workdir / f"{NAME}-sweep"
    rows = json.loads((folder / "sweep.json").read_text())
    assert [(row["run"], row["values"], row["result"], row["step"]) for row in rows] == [
        (f"{NAME}-0", {"config.data.mix.b": 0}, "Succeeded", STEPS),
        (f"{NAME}-1", {"config.data.mix.b": 3}, "Succeeded", STEPS),
    ]
    before = [{source: one["before"] for source, one in row["perplexity"].items()} for row in rows]
    after = [{source: one["after"] for source, one in row["perplexity"].items()} for row in rows]
    assert before[0] == before[1] and set(before[0]) == {"a", "b"}
    assert after[0] != after[1]
    assert all(figure(one["a"]) in done.stdout for one in (before[0], *after))
    page = (folder / "sweep.html").read_text()
    assert page.count("<svg") == 2 and "config.data.mix.b" in page
    again = sweep(file, workdir, "--over", "config.data.mix.b=0,3")
    assert again.returncode == 0 and json.loads((folder / "sweep.json").read_text()) == rows
    assert marked(workdir) == []


def test_a_dry_sweep_writes_manifests_only(tmp_path: Path, workdir: Path) -> None:
    """For kubectl apply."""
    done = sweep(write_manifest(tmp_path, short), workdir, "--over", "config.seed=1,2", "--dry-run")
    assert done.returncode == 0
    assert [Path(line).name for line in done.stdout.splitlines()] == [f"{NAME}-0.yaml", f"{NAME}-1.yaml"]
    assert sorted(path.name for path in workdir.iterdir()) == [f"{NAME}-sweep"]


@pytest.mark.parametrize(
    ("over", "code", "words"),
    [
        ("config.total_steps=1,0", 20, "spec.config.total_steps"),
        ("config.seed", 2, "trainrun sweep: --over config.seed is no field with values"),
    ],
)
def test_a_bad_value_is_told_before_anything_runs(
    tmp_path: Path, workdir: Path, over: str, code: int, words: str
) -> None:
    """Also that of the last run."""
    done = sweep(write_manifest(tmp_path, short), workdir, "--over", over)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not (workdir / f"{NAME}-0").exists()
