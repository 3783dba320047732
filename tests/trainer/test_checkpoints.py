"""What a reader may trust and a writer may do: damage, full disks, and writers that should be dead."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.ranks import finish, launch
from tests.trainer.runs import Site, only_code, wait_for, was_killed

pytestmark = pytest.mark.timeout(300)
Reference = Callable[[int], Site]


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_tensors(site: Site, name: str) -> None:
    """Flip a bit in a checkpoint's tensors."""
    flip(next((site.store / name).glob("*.safetensors")))


def events(site: Site, name: str) -> list[dict[str, Any]]:
    """Log lines of one kind from rank 0 of the newest start."""
    lines = (site.logs / "log0.txt").read_text().splitlines()
    parsed = [json.loads(line) for line in lines if line.startswith("{")]
    return [line for line in parsed if line["event"] == name]


@pytest.mark.parametrize("part", ["tensors", "manifest"])
def test_a_flipped_bit_means_the_older_checkpoint(site: Site, undisturbed: Reference, part: str) -> None:
    """The newest one is damaged: the one before it is taken, the reason is logged, and the run ends equal."""
    was_killed(site.run(2, "kill_in_slot", on_rank=1, nth=6 * 8 + 2), 1)
    if part == "tensors":
        flip_tensors(site, "step-8-c1")
    else:
        flip(site.store / "step-8-c1" / "manifest.json")
    site.finish(2)
    assert site.resumed_from() == 4
    assert "step-8-c1" in events(site, "checkpoint-skipped")[0]["reason"]
    assert site.losses() == undisturbed(2).losses()
    assert site.digests() == undisturbed(2).digests()


def test_two_later_invalid_checkpoints_end_the_run_with_40(site: Site) -> None:
    """That is no accident: going back further is a person's decision."""
    was_killed(site.run(1, "kill_in_slot", on_rank=0, nth=12 * 8 + 1), 0)
    flip_tensors(site, "step-8-c1")
    flip_tensors(site, "step-4-c1")
    outcome = only_code(site.run(1), 40)
    assert outcome["cause"] == "NoUsableCheckpoint"
    assert "step-8-c1" in outcome["message"] and "step-4-c1" in outcome["message"]
    assert len(site.claims()) == 1, "a refused start takes no claim"


def test_the_only_checkpoint_damaged_ends_the_run_with_40(site: Site) -> None:
    """Committed work is never silently begun again."""
    was_killed(site.run(1, "kill_in_slot", on_rank=0, nth=5), 0)
    flip_tensors(site, "step-0-c1")
    only_code(site.run(1), 40)


def of_claim_2(site: Site) -> list[int]:
    """Steps of the second worker group's own checkpoints."""
    return sorted(m["step"] for m in site.manifests().values() if m["claim"] == 2)


@pytest.mark.parametrize(
    ("prefix", "operation"),
    [
        pytest.param("step-8-c1/manifest.json", "write", id="stopped between check and manifest"),
        pytest.param("step-8-c1/manifest.json", "rename", id="stopped before the manifest's rename"),
        pytest.param("step-0-c1/manifest.json", "delete", id="stopped in the middle of pruning"),
        pytest.param("metrics/c1.jsonl", "append", id="trains and prunes on"),
    ],
)
def test_a_zombie_writer_changes_nothing(text: Path, tmp_path: Path, prefix: str, operation: str) -> None:
    """A worker group is stopped, the next one runs to the end, the first goes on: nothing of it counts."""
    site = Site(text, tmp_path / "site")
    site.checkpoint["keepLast"] = 2
    marker = tmp_path / "zombie"
    zombie = site.begin(1, "pause_at_write", prefix=prefix, operation=operation, marker=str(marker))
    zombie_logs = site.logs
    wait_for(Path(f"{marker}.here"))
    site.starts += 1  # a new attempt, not a new generation
    site.finish(1)
    before = site.losses(), site.digests(), site.metrics()[0], of_claim_2(site)
    Path(f"{marker}.go").touch()
    outcome = only_code(finish(zombie, zombie_logs), 41)
    assert outcome["cause"] == "StorageRefused" and "claim 2" in outcome["message"]
    assert (site.losses(), site.digests(), site.metrics()[0], of_claim_2(site)) == before
    site.changes["total_steps"] = 14
    site.finish(1)
    assert site.claims()[-1]["parent"] == {"step": 12, "claim": 2}, "nothing of the zombie was loaded"


def test_an_older_attempt_is_refused_at_its_start(site: Site) -> None:
    """A worker group that starts late, after a newer attempt's claim, may not write at all."""
    late = site.request(1)
    site.starts = 4
    site.finish(1)
    request = site.request(1)
    request.env.update(TRAINRUN_ATTEMPT=late.env["TRAINRUN_ATTEMPT"])
    outcome = only_code(launch(request, site.logs), 41)
    assert "attempt 0 may not write" in outcome["message"]
    assert len(site.claims()) == 1


@pytest.mark.parametrize("hook", ["no_space", "file_too_large"])
def test_a_failed_save_does_not_stop_training(site: Site, hook: str) -> None:
    """Reported, cleaned up, tried again at the next interval; the run still ends with 0."""
    only_code(site.run(2, hook, on_rank=1, prefixes=["step-4-"]), 0)
    assert [event["step"] for event in events(site, "save-failed")] == [4]
    assert not (site.store / "step-4-c1").exists()
    assert set(site.digests()) == {0, 8, 12}
    assert json.loads((site.progress / "rank0.json").read_text())["save_error"] is None


def test_a_full_disk_loses_no_metrics_line(site: Site, undisturbed: Reference) -> None:
    """While nothing can be written training goes on; the lines follow, before the next manifest."""
    only_code(site.run(2, "full_disk", first=2, last=6), 0)
    assert [event["step"] for event in events(site, "save-failed")] == [4]
    assert site.losses() == undisturbed(2).losses()
    assert set(site.digests()) == {0, 8, 12}


@pytest.mark.parametrize("rank", [0, 1])
def test_the_last_save_failing_is_41_on_every_rank(site: Site, rank: int) -> None:
    """A run whose result cannot be kept has not succeeded; with space again it goes on and ends equal."""
    outcome = only_code(site.run(2, "no_space", on_rank=rank, prefixes=["step-12-"]), 41)
    assert "No space left" in outcome["message"]
    assert outcome["durable_checkpoint"]["step"] == 8
    assert "No space left" in json.loads((site.progress / "rank1.json").read_text())["save_error"]
    site.finish(2)
    assert site.resumed_from() == 8


def test_retention_keeps_the_newest_and_the_multiples(site: Site) -> None:
    """keepLast 2, keepEverySteps 6 over saves at 0, 2 ... 12."""
    site.checkpoint = {"interval": 2, "keepLast": 2, "keepEverySteps": 6}
    site.finish(1)
    assert sorted(m["step"] for m in site.manifests().values()) == [0, 6, 10, 12]
    kinds = {path.suffix for folder in site.store.glob("step-*") for path in folder.iterdir()}
    assert kinds == {".safetensors", ".json"}, "nothing is pickled"


@pytest.mark.parametrize(
    ("resume", "code", "words"),
    [
        pytest.param({"from": "Never"}, 20, "resume.from=Never", id="never refuses another run's"),
        pytest.param({"from": "Step", "step": 5}, 40, "resume.step=5", id="no such step"),
    ],
)
def test_resume_policies_that_refuse(site: Site, resume: dict[str, Any], code: int, words: str) -> None:
    """A new run over the checkpoints of an old one."""
    site.changes["total_steps"] = 4
    site.finish(1)
    site.uid, site.resume, site.starts = "uid-2", resume, 2
    assert words in only_code(site.run(1), code)["message"]


def test_resume_from_a_step_goes_back_once(site: Site) -> None:
    """The first start takes the step; later ones of the same run go on from their own newest."""
    site.finish(1)
    site.uid, site.resume, site.starts = "uid-2", {"from": "Step", "step": 4}, 2
    was_killed(site.run(1, "kill_in_slot", on_rank=0, nth=12 * 5), 0)
    assert site.resumed_from() == 4
    site.finish(1)
    assert site.resumed_from() == 8
    assert list(site.losses()) == list(range(1, 13))
