"""Small files of local mode: journal, followers, locks, merged metrics, slots on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from trainrun_operator.clock import SystemClock
from trainrun_operator.local.disk import ObjectFiles, append_line, read_json, read_lines, write_json
from trainrun_operator.local.journal import Journal
from trainrun_operator.local.layout import RunDir
from trainrun_operator.local.merge import MetricsFile
from trainrun_operator.local.tailing import Follower
from trainrun_operator.local.workdir import FileLock, WorkdirInUseError, lock_workdir
from trainrun_operator.objects import ObjectKey


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """An empty run."""
    made = RunDir(tmp_path / "r")
    made.make()
    return made


def test_reading_json_that_is_missing_or_torn_is_none(tmp_path: Path) -> None:
    """Readers meet files that are being made."""
    (tmp_path / "torn").write_text('{"a":')
    write_json(tmp_path / "whole", {"a": 1})
    assert [read_json(tmp_path / name) for name in ("missing", "torn", "whole", "whole/below")] == [
        None,
        None,
        {"a": 1},
        None,
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["torn", "whole"]


def test_lines_that_are_torn_or_damaged_are_left_out(tmp_path: Path) -> None:
    """kill -9 in the middle of a line costs that line only."""
    path = tmp_path / "events.jsonl"
    append_line(path, {"a": 1})
    with open(path, "a") as file:
        file.write('{"torn": \n{"b": 2}\n{"half":')
    assert list(read_lines(path)) == [{"a": 1}, {"b": 2}]
    assert list(read_lines(tmp_path / "missing")) == []


def test_a_follower_gives_each_whole_line_once(tmp_path: Path) -> None:
    """A line that is written in two parts comes when it is whole."""
    path = tmp_path / "events.jsonl"
    follower = Follower(path)
    assert list(follower.read()) == []
    path.write_text('{"a": 1}\n{"b"')
    assert list(follower.read()) == [{"a": 1}]
    with open(path, "a") as file:
        file.write(": 2}\nno json\n[1]\n")
    assert list(follower.read()) == [{"b": 2}]
    late = Follower(path)
    late.skip_to_end()
    assert list(late.lines()) == []


def test_the_journal_fills_in_run_and_time(run_dir: RunDir) -> None:
    """The time is when the line was written, with milliseconds: recovery is measured by it."""
    Journal(run_dir.events, "r", SystemClock())({"type": "event", "time": "2026-01-01T00:00:00Z"})
    (line,) = read_lines(run_dir.events)
    assert (line["run"], line["type"], line["time"][-1], len(line["time"])) == ("r", "event", "Z", 24)
    assert line["time"] != "2026-01-01T00:00:00Z"


def test_stored_objects_are_one_file_each(run_dir: RunDir) -> None:
    """Kinds are told apart also where one name begins like another."""
    files = ObjectFiles(run_dir.objects)
    for kind in ("Pod", "PodTemplate"):
        files(ObjectKey(kind, "default", "x"), {"kind": kind})
    assert files.read("Pod") == [{"kind": "Pod"}]
    files(ObjectKey("Pod", "default", "x"), None)
    assert files.read() == [{"kind": "PodTemplate"}]


def test_a_workdir_has_one_holder_and_no_child_keeps_it(tmp_path: Path) -> None:
    """The second is told the first one's pid; a child that outlives the holder does not hold."""
    lock = lock_workdir(tmp_path, ".lock")
    with pytest.raises(WorkdirInUseError, match=f"is in use by process {os.getpid()}"):
        lock_workdir(tmp_path, ".lock")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
        lock.close()
        with FileLock(tmp_path / ".lock") as again:
            assert again.take()
        child.kill()


def claim(run_dir: RunDir, k: int, parent: tuple[int, int] | None) -> None:
    claims = run_dir.checkpoints / "claims"
    claims.mkdir(exist_ok=True)
    write_json(claims / f"{k}.json", {"k": k, "parent": parent and {"step": parent[0], "claim": parent[1]}})


def lines(run_dir: RunDir, k: int, steps: dict[int, float]) -> None:
    folder = run_dir.checkpoints / "metrics"
    folder.mkdir(exist_ok=True)
    for step, loss in steps.items():
        append_line(folder / f"c{k}.jsonl", {"step": step, "loss": loss, "loss_hex": loss.hex(), "claim": k})


def test_metrics_have_one_line_per_step_along_the_claims(run_dir: RunDir) -> None:
    """Steps that were done again come from the newer claim; an evaluation joins its step; step 0 has no line."""
    merging = MetricsFile(run_dir)
    claim(run_dir, 1, None)
    append_line_of_evaluation(run_dir, 1, 0)
    lines(run_dir, 1, {1: 5.0, 2: 4.0, 3: 3.0})
    assert merging.refresh(is_final=True) == []
    claim(run_dir, 2, (2, 1))
    lines(run_dir, 2, {3: 3.0, 4: 2.0})
    append_line_of_evaluation(run_dir, 2, 4)
    assert merging.refresh(is_final=True) == []
    merged = [json.loads(line) for line in run_dir.metrics.read_text().splitlines()]
    assert [(m["step"], m["claim"], "eval" in m) for m in merged] == [
        (1, 1, False),
        (2, 1, False),
        (3, 2, False),
        (4, 2, True),
    ]


def test_each_stage_has_lines_of_its_own(run_dir: RunDir) -> None:
    """In the order in which the stages began; a record that is half written is no stage."""
    for name, began in (("tuned", "2026-01-02"), ("base", "2026-01-01")):
        folder = run_dir.checkpoints / "stages" / name / "0a"
        (folder / "metrics").mkdir(parents=True)
        (folder / "claims").mkdir()
        write_json(folder / "claims" / "1.json", {"k": 1, "parent": None})
        line = {"step": 1, "loss": 1.0, "loss_hex": "0x1p+0", "claim": 1}
        append_line(folder / "metrics" / "c1.jsonl", line)
        record = {"name": name, "kind": "train", "folder": f"stages/{name}/0a", "started_at": began}
        write_json(run_dir.checkpoints / "stages" / name / "stage.json", record)
    torn = run_dir.checkpoints / "stages" / "torn" / "stage.json"
    torn.parent.mkdir()
    torn.write_text('{"name": "to')
    assert MetricsFile(run_dir).refresh(is_final=True) == []
    merged = [json.loads(line) for line in run_dir.metrics.read_text().splitlines()]
    assert [(m["stage"], m["step"]) for m in merged] == [("base", 1), ("tuned", 1)]


def append_line_of_evaluation(run_dir: RunDir, k: int, step: int) -> None:
    (run_dir.checkpoints / "metrics").mkdir(exist_ok=True)
    line = {"step": step, "loss": None, "loss_hex": None, "claim": k, "eval": {"a": {"loss": 1.0}}}
    append_line(run_dir.checkpoints / "metrics" / f"c{k}.jsonl", line)


def test_a_replay_with_another_loss_is_told_once(run_dir: RunDir) -> None:
    """Also after a restart of the supervisor: what was told is in events.jsonl."""
    claim(run_dir, 1, None)
    lines(run_dir, 1, {1: 5.0, 2: 4.0})
    claim(run_dir, 2, (1, 1))
    lines(run_dir, 2, {2: 4.5})
    merging = MetricsFile(run_dir)
    (record,) = merging.refresh(is_final=True)
    assert (record["reason"], record["severity"], record["step"]) == ("ReplayDiverged", "Warning", 2)
    assert "step 2 ran twice with different losses" in record["message"]
    Journal(run_dir.events, "r", SystemClock())(record)
    lines(run_dir, 2, {3: 3.0})
    assert merging.refresh(is_final=True) == []
    assert MetricsFile(run_dir).refresh(is_final=True) == []


def test_unchanged_metrics_are_not_merged_again(run_dir: RunDir) -> None:
    """The file keeps its inode until something is new."""
    claim(run_dir, 1, None)
    lines(run_dir, 1, {1: 5.0})
    merging = MetricsFile(run_dir)
    merging.refresh(is_final=True)
    before = run_dir.metrics.stat().st_ino
    merging.refresh(is_final=True)
    assert run_dir.metrics.stat().st_ino == before
    lines(run_dir, 1, {2: 5.0})
    merging.refresh(is_final=True)
    assert run_dir.metrics.stat().st_ino != before
