"""`trainrun explain-step`: the documents of a step, and the proof that the run read what was ordered."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.explain_step import digests, explain, first_difference, open_run
from trainrun_trainer.stages.records import StageRecord
from trainrun_trainer.storage import LocalDirectory
from trainrun_trainer.tokenizer import load_tokenizer

from tests.trainer.runs import Site, was_killed

ASK = [sys.executable, "-m", "trainrun_trainer.explain_step"]


def test_a_step_names_its_documents(site: Site) -> None:
    """After a kill and another number of workers: pieces of real files, and every row as ordered."""
    was_killed(site.run(2, "kill_in_slot", on_rank=1, nth=6 * 5), 1)
    site.finish(1)
    found = explain(str(site.store), 7)
    rows = {(piece["source"], piece["row"]) for piece in found["pieces"]}
    assert len(rows) == 12 and {piece["position"] for piece in found["pieces"]} == set(range(72, 84))
    assert sum(piece["tokens"] for piece in found["pieces"]) == 12 * 48
    assert all((site.text / piece["source"] / piece["file"]).is_file() for piece in found["pieces"])
    assert found["proof"]["first_difference"] is None and found["proof"]["steps"] == 12
    assert all(usage["most"] - usage["fewest"] <= 1 for usage in found["proof"]["usage"].values())
    first = next(piece for piece in found["pieces"] if piece["source"] == "domain")
    data = open_run(LocalDirectory(site.store)).data
    stored = np.fromfile(data.folder / "domain/train.rows", np.int32).reshape(-1, 50)[first["row"], 2:]
    tokenizer = load_tokenizer(data.folder / "tokenizer")
    whole = tokenizer((site.text / "domain" / first["file"]).read_text())["input_ids"] + [tokenizer.eos_token_id]
    named = whole[first["first_token"] : first["first_token"] + first["tokens"]]
    assert stored[: first["tokens"]].tolist() == named, "the row begins with just these tokens of that file"

    command = [*ASK, "7", "--checkpoint", str(site.store)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith("step 7 reads, from data ") and f"{first['file']}, document {first['document']}" in said
    assert "proved: the 12 steps that the run reports read exactly the rows of the order function" in said


def test_a_step_that_read_other_rows_is_found(undisturbed: object) -> None:
    """One digest of another run among the reported ones."""
    site = undisturbed(2)  # type: ignore[operator]
    storage = LocalDirectory(site.store)
    run, reported = open_run(storage), digests(storage)
    assert first_difference(run, reported) is None
    assert first_difference(run, {**reported, 5: reported[6]}) == 5


def with_stages(site: Site, root: Path, **kinds: str) -> Path:
    """A run of stages whose every stage has left this run's store."""
    shutil.copytree(site.store / "data", root / "data")
    for name, kind in kinds.items():
        place = root / "stages" / name
        shutil.copytree(site.store, place / "new", ignore=shutil.ignore_patterns("data"))
        (place / "records").mkdir()
        for claim, folder in (1, "old"), (2, "new"):
            record = StageRecord(name=name, kind=kind, claim=claim, folder=f"stages/{name}/{folder}")
            (place / "records" / f"{claim}.json").write_text(record.to_json())
    return root


def test_the_only_stage_that_trains_is_meant(undisturbed: Callable[[int], Site], tmp_path: Path) -> None:
    """The root of a run of stages says what the store of that stage says, of its newest start."""
    site = undisturbed(2)
    root = with_stages(site, tmp_path, texts="prepare", base="train")
    assert explain(str(root), 7) == explain(str(root), 7, "base") == explain(str(site.store), 7)


def test_of_several_stages_one_is_to_be_named(undisturbed: Callable[[int], Site], tmp_path: Path) -> None:
    """And no other than those that train."""
    site = undisturbed(2)
    root = with_stages(site, tmp_path, base="train", tuned="train", merged="merge")
    command = [*ASK, "7", "--checkpoint", str(root)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"{root}: 2 stages have trained, each with steps of its own; give --stage base or tuned\n"
    assert subprocess.run([*command, "--stage", "tuned"], capture_output=True, text=True, check=True).stdout
    for name in ("merged", "late"):
        with pytest.raises(ConfigError, match=f"--stage={name} is no stage that has trained; give --stage base or tun"):
            explain(str(root), 7, name)
    shutil.rmtree(root / "stages/base")
    shutil.rmtree(root / "stages/tuned")
    with pytest.raises(ConfigError, match=": no stage has trained yet"):
        explain(str(root), 7)
    with pytest.raises(ConfigError, match=f"{site.store} is no run of several stages; leave --stage=base out"):
        explain(str(site.store), 7, "base")


def test_what_cannot_be_told_is_one_sentence(tmp_path: Path) -> None:
    """No run there, no such step."""
    for step, words in (("3", "no valid checkpoint"), ("0", "count from 1")):
        arguments = [step, "--checkpoint", str(tmp_path)]
        done = subprocess.run([*ASK, *arguments], capture_output=True, text=True)
        assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr
