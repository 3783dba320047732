"""A stage's records: whatever ends between two writes, and whoever wakes up late, a reader finds what is whole.

The worker runs in this process over a merge of two tiny models, which takes milliseconds, so that every single write
can be the last one, or the one before which another attempt does everything.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from trainrun_api.contract import Env
from trainrun_trainer import lora_merge, worker
from trainrun_trainer.claims import Owner
from trainrun_trainer.stages.hashes import files_of
from trainrun_trainer.stages.records import DONE, Records, StageRecord
from trainrun_trainer.storage import Before, LocalDirectory

from tests.trainer.models import save, tiny, tokenizer
from tests.trainer.ranks import finish
from tests.trainer.runs import only_code, wait_for
from tests.trainer.stage_runs import Chain, attempt
from tests.trainer.test_lora_merge import save_adapter


class Killed(BaseException):
    """Nothing after it happens."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two that fit together."""
    place = tmp_path_factory.mktemp("models")
    torch.set_num_threads(1)
    base = tiny(0)
    return [str(save(model, tokenizer(), place / name)) for name, model in (("a", base), ("b", tiny(1, base)))]


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path / "root", tmp_path)


def merge_of(models: list[str], t: float = 0.5) -> dict[str, Any]:
    return {"method": "linear", "t": t, "models": models, "max_shard_bytes": 200_000}


def told(chain: Chain, models: list[str], t: float) -> None:
    """The stage is done with this t: by its copy, by its records, by its files, with no other half beside them."""
    found = Records(LocalDirectory(chain.root), "it").done()
    assert found is not None and found.is_whole(LocalDirectory(chain.root))
    assert found.config["t"] == t and chain.record("it") == json.loads(found.to_json())
    whole = {path.parents[1] for path in (chain.root / "stages" / "it").glob("*/model/manifest.json")}
    assert whole == set((chain.root / "stages" / "it").glob("*-c*"))


def count_writes(chain: Chain, config: dict[str, Any]) -> int:
    seen: list[str] = []
    attempt(chain, "merge", config, lambda operation, name: seen.append(name))
    return len(seen)


def test_a_crash_between_any_two_writes_is_mended_by_the_next_attempt(models: list[str], tmp_path: Path) -> None:
    """After it the copy is whole or not there; the next attempt does the stage, or finds it done."""
    config = merge_of(models)
    writes = count_writes(Chain(tmp_path / "undisturbed", tmp_path), config)
    assert writes > 12
    for last in range(writes):
        chain = Chain(tmp_path / f"root{last}", tmp_path / f"scratch{last}")
        left = writes_left(last)
        with pytest.raises(Killed):
            attempt(chain, "merge", config, left)
        copy = chain.root / "stages" / "it" / "stage.json"
        assert not copy.exists() or json.loads(copy.read_text())["state"] in ("running", "done")
        assert attempt(chain, "merge", config)["exit_code"] == 0
        told(chain, models, 0.5)


def writes_left(number: int) -> Before:
    """Killed ahead of the write after so many."""
    left = number

    def before(operation: str, name: str) -> None:
        nonlocal left
        if not left:
            raise Killed
        left -= 1

    return before


def test_an_attempt_that_slept_before_any_write_spoils_nothing(models: list[str], tmp_path: Path) -> None:
    """While it slept, the next attempt did the stage with another t; that stays the result, for readers and people."""
    writes = count_writes(Chain(tmp_path / "undisturbed", tmp_path), merge_of(models, 0.25))
    codes = set()
    for slept in range(writes):
        chain = Chain(tmp_path / f"root{slept}", tmp_path / f"scratch{slept}")
        seen = 0

        def before(operation: str, name: str, chain: Chain = chain, slept: int = slept) -> None:
            nonlocal seen
            seen += 1
            if seen == slept + 1:
                assert attempt(chain, "merge", merge_of(models, 0.75))["exit_code"] == 0

        codes.add(attempt(chain, "merge", merge_of(models, 0.25), before)["exit_code"])
        found = Records(LocalDirectory(chain.root), "it").done()
        assert found is not None and found.config["t"] == 0.75 and found.is_whole(LocalDirectory(chain.root))
        assert chain.record("it") == json.loads(found.to_json())
    assert codes == {0, 41}, "it ends as fenced, unless it had published before it slept"


def test_a_process_that_was_frozen_is_fenced(models: list[str], chain: Chain, tmp_path: Path) -> None:
    """The same with a real one, which sleeps in front of its last record."""
    stages = {"it": ("merge", merge_of(models, 0.25))}
    other, marker = Chain(tmp_path / "other", tmp_path / "other-scratch"), str(tmp_path / "slept")
    attempt(other, *stages["it"])
    folder = other.record("it")["folder"]  # the same input has the same name
    processes = chain.begin(stages, "it", "pause_at_write", prefix=folder, operation="fsync", marker=marker)
    logs = chain.logs
    wait_for(Path(f"{marker}.here"))
    assert attempt(chain, "merge", merge_of(models, 0.75))["exit_code"] == 0
    Path(f"{marker}.go").touch()
    assert "claim 1 is over" in only_code(finish(processes, logs), 41)["message"]
    told(chain, models, 0.75)


def test_an_older_attempt_may_not_begin(models: list[str], chain: Chain) -> None:
    """A worker that comes up late."""
    chain.attempts = 5
    attempt(chain, "merge", merge_of(models))
    chain.attempts = 4
    outcome = attempt(chain, "merge", merge_of(models, 0.1))
    assert outcome["exit_code"] == 41 and "attempt 4 may not write" in outcome["message"]
    told(chain, models, 0.5)


def test_a_stop_request_ends_it_between_two_units(models: list[str], chain: Chain) -> None:
    """Exit code 10; the record goes on saying that it runs; the next attempt begins anew."""
    (chain.scratch / "progress0").mkdir(parents=True)
    (chain.scratch / "progress0" / "stop.json").write_text('{"reason": "suspended", "exit_code": 10}')
    outcome = attempt(chain, "merge", merge_of(models))
    assert (outcome["exit_code"], outcome["step"]) == (10, 1) and outcome["target_step"] > 1
    record = chain.record("it")
    assert record["state"] == "running" and record["seconds"] > 0
    done = attempt(chain, "merge", merge_of(models))
    assert done["exit_code"] == 0 and done["step"] == done["target_step"] == outcome["target_step"]
    assert chain.record("it")["started_at"] == record["started_at"]
    assert chain.record("it")["seconds"] > record["seconds"]
    told(chain, models, 0.5)


def test_progress_counts_units_with_an_allowance(models: list[str], chain: Chain) -> None:
    attempt(chain, "merge", merge_of(models))
    record = json.loads((chain.scratch / "progress0" / "rank0.json").read_text())
    assert (record["phase"], record["expected_next_within_seconds"]) == ("finishing", 3600)
    assert record["step"] == record["total_steps"] > 1


def test_a_damaged_result_is_made_again(models: list[str], chain: Chain) -> None:
    attempt(chain, "merge", merge_of(models))
    before = files_of(chain.result("it"))
    file = next(chain.result("it").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-4] + b"xxxx")
    assert attempt(chain, "merge", merge_of(models))["exit_code"] == 0
    assert files_of(chain.result("it")).keys() == before.keys()
    found = Records(LocalDirectory(chain.root), "it").done()
    assert found is not None and found.is_whole(LocalDirectory(chain.root)) and found.claim == 2


def test_other_weights_under_the_same_name_are_another_input(models: list[str], chain: Chain, tmp_path: Path) -> None:
    """A folder from elsewhere counts by its content."""
    theirs = tmp_path / "theirs"
    save(tiny(2, tiny(0)), tokenizer(), theirs)
    attempt(chain, "merge", merge_of([models[0], str(theirs)]))
    attempt(chain, "merge", merge_of([models[0], str(theirs)]))
    assert len(list((chain.root / "stages" / "it").glob("*-c*"))) == 1
    save(tiny(3, tiny(0)), tokenizer(), theirs)
    attempt(chain, "merge", merge_of([models[0], str(theirs)]))
    assert len(list((chain.root / "stages" / "it").glob("*-c*"))) == 2


def finished(chain: Chain, name: str, kind: str, *files: str, **facts: Any) -> None:
    """A stage of the past."""
    root = LocalDirectory(chain.root)
    records, folder = Records(root, name), f"stages/{name}/x-c1"
    for file in files:
        (chain.root / folder / file).parent.mkdir(parents=True, exist_ok=True)
        (chain.root / folder / file).write_text("{}")
    record = StageRecord(name=name, kind=kind, state=DONE, folder=folder, outputs=dict.fromkeys(files, "0"), **facts)
    records.write(records.begin(Owner("uid-1", 0, 0)), record)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_adapters_and_their_model_become_a_model(chain: Chain, models: list[str], tmp_path: Path) -> None:
    """As by the command; what later stages get is a model folder, and another adapter is another input."""
    adapter = save_adapter(tmp_path / "adapter", Path(models[0]), "llama")
    config = {"models": [models[0]], "adapter": str(adapter)}
    assert attempt(chain, "merge", config)["exit_code"] == 0
    record = Records(LocalDirectory(chain.root), "it").done()
    assert record is not None and record.result is not None
    lora_merge.merge(Path(models[0]), adapter, tmp_path / "by-hand")
    assert (chain.root / record.result / "model.safetensors").read_bytes() == (
        tmp_path / "by-hand" / "model.safetensors"
    ).read_bytes()
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, adapter / "adapter_model.safetensors")
    assert attempt(chain, "merge", config)["exit_code"] == 0
    again = Records(LocalDirectory(chain.root), "it").done()
    assert again is not None and again.input != record.input


SETS = {"perplexity": {"general": {"path": "general.jsonl"}}}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "no stage": (
        "merge",
        {"method": "slerp", "models": ["stage:nobody", "x"]},
        "config.models[0]=stage:nobody: stage nobody has no result here; run that stage first",
    ),
    "not done": (
        "merge",
        {"method": "slerp", "models": ["stage:begun", "x"]},
        "config.models[0]=stage:begun: stage begun has no result here",
    ),
    "adapters": (
        "evaluate",
        {**SETS, "model": "stage:lora", "baseline": "x"},
        "holds adapters and no model; merge them by a stage of kind merge with adapter: stage:lora, and name that one",
    ),
    "no model": (
        "evaluate",
        {**SETS, "model": "stage:measured", "baseline": "x"},
        "is no model folder; name a stage that makes a model",
    ),
    "gone": ("consolidate", {"checkpoint": "stage:gone/checkpoints"}, "step-2-c1/manifest.json is gone; restore it"),
    "model for a store": (
        "consolidate",
        {"checkpoint": "stage:lora"},
        "is the result of stage lora, which is of kind train; expected a train stage's checkpoints, as "
        "stage:lora/checkpoints",
    ),
    "no such part": ("consolidate", {"checkpoint": "stage:measured/checkpoints"}, "which is of kind evaluate"),
    "unknown field": ("consolidate", {"checkpointed": "x"}, "config.checkpoint: Field required"),
    "two fields": ("evaluate", {**SETS, "model": "m"}, "config: baseline is needed beside model"),
    "no folder": (
        "merge",
        {"method": "slerp", "models": ["/nowhere", "/nowhere"]},
        "config.models[0]=/nowhere: its files cannot be read",
    ),
    "kind": ("precompile", {}, "stages[it].kind=precompile: this trainer has prepare, train,"),
    "page of nobody": ("report", {"stages": ["nobody"]}, "config.stages: stage nobody has no result here"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_cannot_be_is_one_sentence_and_code_20(chain: Chain, case: str) -> None:
    """Before anything is written for the stage."""
    finished(chain, "lora", "train", "export/adapter_config.json", result="stages/lora/x-c1/export")
    finished(chain, "measured", "evaluate", "evaluation.json", result="stages/measured/x-c1")
    finished(chain, "gone", "train", "step-2-c1/manifest.json", result="stages/gone/x-c1/export")
    (chain.root / "stages" / "gone" / "x-c1" / "step-2-c1" / "manifest.json").unlink()
    Records(LocalDirectory(chain.root), "begun").begin(Owner("uid-1", 0, 0))
    kind, config, words = REFUSED[case]
    outcome = attempt(chain, kind, config)
    assert outcome["exit_code"] == 20 and words in outcome["message"], outcome["message"]
    assert "\n" not in outcome["message"]
    assert not (chain.root / "stages" / "it").exists()


def test_a_bucket_and_a_group_are_refused(chain: Chain) -> None:
    """A run of several stages needs one folder; all but training are one process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**chain.env("it", "report", {}), Env.CHECKPOINT_PATH: "relative"}.items():
            patch.setenv(name, value)
        assert "expected an absolute path" in worker.run()["message"]
        patch.setenv("WORLD_SIZE", "2")
        assert worker.run()["message"] == "stage it of kind report has 2 processes, expected 1"
