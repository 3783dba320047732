"""`trainrun explain-step`: the documents of a step, and the proof that the run read what was ordered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from trainrun_trainer.explain_step import digests, explain, first_difference, open_run
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


def test_what_cannot_be_told_is_one_sentence(tmp_path: Path) -> None:
    """No run there, no such step."""
    for step, words in (("3", "no valid checkpoint"), ("0", "count from 1")):
        arguments = [step, "--checkpoint", str(tmp_path)]
        done = subprocess.run([*ASK, *arguments], capture_output=True, text=True)
        assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr
