"""What a run does besides surviving: numbers, stops, faults, evaluation, precision, export."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from tests.trainer.ranks import finish, launch, start
from tests.trainer.runs import TINY, Site, only_code, was_killed
from tests.trainer.test_checkpoints import events, wait_for

pytestmark = pytest.mark.timeout(300)


def short(text: Path, root: Path, **changes: Any) -> Site:
    """A run of 6 steps without evaluation, saved every 3."""
    return Site(text, root, {"total_steps": 6, "eval": None, **changes}, {"interval": 3, "keepLast": 10})


def test_nan_on_one_rank_is_31_on_every_rank_before_the_weights_change(site: Site, tmp_path: Path) -> None:
    """Agreed by all-reduce: no optimizer takes the step."""
    marker = tmp_path / "steps"
    outcome = only_code(site.run(2, "nan_in_slot", on_rank=1, nth=6 * 2 + 3, marker=str(marker)), 31)
    assert outcome["cause"] == "NumericalFault"
    assert outcome["message"].startswith("step 3: loss=nan")
    assert outcome["step"] == 2
    assert {p.name: p.read_text() for p in tmp_path.glob("steps*")} == {"steps0": "..", "steps1": ".."}


def test_a_stop_request_stops_all_ranks_after_the_same_step(
    site: Site, undisturbed: Callable[[int], Site], tmp_path: Path
) -> None:
    """One rank is held by a fault of local mode, the request comes, both save together; the run then ends equal."""
    faults = tmp_path / "faults"
    faults.mkdir()
    fault = {"id": "f1", "kind": "hang-worker", "step": 5, "rank": -1}
    (faults / "f1.json").write_text(json.dumps(fault))
    request = site.request(2)
    request.env["TRAINRUN_FAULTS"] = str(faults)
    processes = start(request, site.logs)
    wait_for(faults / "f1.held")
    held = json.loads((faults / "f1.held").read_text())
    assert held == {"pid": processes[1].pid, "pod_index": 0, "attempt": 0, "generation": 0, "step": 5}
    (site.progress / "stop.json").write_text(json.dumps({"reason": "Suspended", "exit_code": 10}))
    (faults / "f1.done").touch()
    outcome = only_code(finish(processes, site.logs), 10)
    assert outcome["step"] == outcome["final_checkpoint"]["step"] == 6
    assert outcome["target_step"] == 12
    (site.progress / "stop.json").unlink()
    site.finish(2)
    assert site.losses() == undisturbed(2).losses()
    assert site.digests().items() - {(6, site.digests()[6])} == undisturbed(2).digests().items()
    evaluations = [line.get("eval") for line in site.metrics()[0]]
    assert evaluations == [line.get("eval") for line in undisturbed(2).metrics()[0]], (
        "a due evaluation is done after resume"
    )


def test_a_time_limit_is_11(site: Site) -> None:
    """The agent asks with code 11; a half-written request still stops."""
    site.progress.mkdir()
    (site.progress / "stop.json").write_text(json.dumps({"reason": "deadline", "exit_code": 11}))
    assert only_code(site.run(1), 11)["final_checkpoint"]["step"] == 1
    (site.progress / "stop.json").write_text("{")
    assert only_code(site.run(1), 10)["final_checkpoint"]["step"] == 2


def test_progress_tells_the_agent_what_it_needs(site: Site) -> None:
    """Instants of this machine's clock, seconds by class, the durable checkpoint."""
    site.finish(2)
    for rank in range(2):
        record = json.loads((site.progress / f"rank{rank}.json").read_text())
        assert (record["rank"], record["local_rank"], record["step"], record["total_steps"]) == (rank, rank, 12, 12)
        assert record["phase"] == "finishing"
        assert record["durable_checkpoint"]["step"] == 12
        assert record["durable_checkpoint"]["committed_monotonic"] <= record["written_monotonic"] <= time.monotonic()
        assert 0 < record["slowest_step_seconds"] <= record["seconds_by_class"]["step"]
        assert set(record["seconds_by_class"]) <= {"load", "data", "step", "save", "evaluate", "export"}
    timeline = json.loads((site.store / "metrics" / "c1.timeline.json").read_text())
    order = ["process_started", "rendezvous_done", "loaded", "first_step_done"]
    assert [timeline[name] for name in order] == sorted(timeline[name] for name in order)
    assert timeline["resumed_from_step"] is None


def test_evaluation_touches_no_bit_of_training(text: Path, tmp_path: Path) -> None:
    """With dropout, which draws random numbers, and with evaluation after every step or never."""
    runs = []
    for every in (1, None):
        evaluation = every and {"every_steps": every, "max_rows_per_source": 3}
        site = short(text, tmp_path / str(every), dropout=0.1, eval=evaluation)
        site.finish(1)
        runs.append((site.losses(), site.digests()))
    assert runs[0] == runs[1]


def test_held_out_loss_does_not_depend_on_the_number_of_ranks(text: Path, tmp_path: Path) -> None:
    """Token-weighted over ranks: each held-out row counts once."""
    found = []
    for world_size in (1, 2, 3):
        site = short(text, tmp_path / str(world_size), total_steps=1, eval={"every_steps": 1, "max_rows_per_source": 5})
        site.finish(world_size)
        found.append(site.metrics()[0][0]["eval"])
    for other in found[1:]:
        for source, result in found[0].items():
            assert other[source]["tokens"] == result["tokens"]
            assert other[source]["loss"] == pytest.approx(result["loss"], abs=1e-5)


@pytest.mark.parametrize(
    ("world_size", "changes"),
    [
        pytest.param(2, {"precision": "bf16"}, id="bf16"),
        pytest.param(1, {"dropout": 0.2}, id="dropout"),
        pytest.param(4, {"parallel": {"dp_replicate": 2}}, id="hybrid sharding"),
    ],
)
def test_variants_resume_bit_identically(text: Path, tmp_path: Path, world_size: int, changes: dict[str, Any]) -> None:
    """Killed after the first save, at the end equal; and close to, but not the same as, the plain run."""
    site, undisturbed = (short(text, tmp_path / name, **changes) for name in ("killed", "undisturbed"))
    was_killed(site.run(world_size, "kill_in_slot", on_rank=0, nth=12 // world_size * 4), 0)
    site.finish(world_size)
    undisturbed.finish(world_size)
    assert site.losses() == undisturbed.losses()
    assert site.digests() == undisturbed.digests()
    plain = short(text, tmp_path / "plain")
    plain.finish(1)
    assert site.losses() != plain.losses()
    for step, loss in plain.losses().items():
        assert float.fromhex(site.losses()[step]) == pytest.approx(float.fromhex(loss), abs=0.05)


def test_bf16_keeps_weights_and_moments_in_fp32(text: Path, tmp_path: Path) -> None:
    """bf16 is for computing only."""
    site = short(text, tmp_path, precision="bf16", total_steps=1)
    site.finish(1)
    with safe_open(next((site.store / "step-1-c1").glob("*.safetensors")), "pt") as tensors:
        assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"F32"}


def test_another_number_of_ranks_goes_on_and_says_so(text: Path, tmp_path: Path) -> None:
    """Same rows, close losses, and a line that bits may differ."""
    site, undisturbed = short(text, tmp_path / "moved"), short(text, tmp_path / "undisturbed")
    was_killed(site.run(2, "kill_in_slot", on_rank=0, nth=6 * 4), 0)
    site.finish(3)
    [event] = events(site, "numerics-changed")
    assert "may differ" in event["message"] and "world_size: 2 -> 3" in event["changes"]
    undisturbed.finish(2)
    merged, other = site.metrics()[0], undisturbed.metrics()[0]
    assert [line["rows_digest"] for line in merged] == [line["rows_digest"] for line in other]
    assert [line["loss"] for line in merged] == pytest.approx([line["loss"] for line in other], abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "checkpoint_path", "words"),
    [
        pytest.param({"micro_batch_rows": 5}, None, "micro_batch_rows=5", id="batch"),
        pytest.param({"parallel": {"dp_shard": 3}}, None, "dp_shard=3", id="mesh"),
        pytest.param({"parallel": {"tp": 2}}, None, "tp=2", id="tensor parallel"),
        pytest.param({"model": {}}, None, "architecture and path", id="no model"),
        pytest.param({"model": {"path": "/nowhere"}}, None, "model.path=/nowhere", id="no folder"),
        pytest.param({"warp": 9}, None, "config.warp", id="unknown field"),
        pytest.param({}, "relative", "absolute path", id="relative path"),
    ],
)
def test_bad_configurations_are_20_with_a_sentence(
    site: Site, changes: dict[str, Any], checkpoint_path: str | None, words: str
) -> None:
    """Returned, not raised; nothing is retried."""
    site.changes = changes
    request = site.request(1)
    if checkpoint_path:
        request.env["TRAINRUN_CHECKPOINT_PATH"] = checkpoint_path
    outcome = only_code(launch(request, site.logs), 20)
    assert outcome["cause"] == "BadConfig"
    assert words in outcome["message"]


def test_bad_text_is_21_on_every_rank(site: Site, tmp_path: Path) -> None:
    """Rank 0 finds it, both return it."""
    site.text = tmp_path / "nothing"
    assert "no such folder" in only_code(site.run(2), 21)["message"]


def test_what_may_not_change_on_resume_is_refused_by_name(site: Site) -> None:
    """Seed, model and data make another run; lengths and cadences may change."""
    site.changes = {"total_steps": 2}
    site.finish(1)
    site.changes = {"total_steps": 3, "eval": None}
    site.finish(1)
    site.changes = {"total_steps": 2, "eval": None}
    assert "config.total_steps=2, but 3 steps" in only_code(site.run(1), 20)["message"]
    site.changes = {"total_steps": 4, "seed": 9}
    message = only_code(site.run(1), 20)["message"]
    assert "config.seed is 9" in message and "step 3" in message


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_export_has_equal_logits_in_plain_transformers(text: Path, tmp_path: Path) -> None:
    """Killed in the middle of the export, exported again, in several files; equal to the final checkpoint."""
    site = short(text, tmp_path, total_steps=2, export={"max_shard_bytes": 1_000_000})
    site.changes["model"] = {"architecture": {**TINY, "num_hidden_layers": 6}}
    was_killed(site.run(2, "kill_at_write", on_rank=0, prefix="export/", nth=6), 0)
    assert not (site.store / "export" / "manifest.json").exists()
    site.finish(2)
    folder = site.store / "export"
    exported = AutoModelForCausalLM.from_pretrained(folder).eval()
    trained = LlamaForCausalLM(exported.config).eval()
    weights = {f"model.{name}": p.data for name, p in trained.named_parameters()}
    dcp.load(weights, storage_reader=HuggingFaceStorageReader(str(site.store / "step-2-c1")), no_dist=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer("In the beginning God created the heaven")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(exported(ids).logits, trained(ids).logits)
    told = json.loads((folder / "lineage.json").read_text())
    assert told["state_digest"] == site.digests()[2]
    assert len(list(folder.glob("*.safetensors"))) > 1


def test_a_hugging_face_folder_is_trained_on_and_checked_key_by_key(text: Path, tmp_path: Path) -> None:
    """An export is a model folder; with a tensor too few it is refused by name."""
    first = short(text, tmp_path / "first", total_steps=2)
    first.finish(1)
    folder = first.store / "export"
    second = short(text, tmp_path / "second", total_steps=1, model={"path": str(folder)})
    second.finish(1)
    assert float.fromhex(second.losses()[1]) < float.fromhex(first.losses()[1])
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    with safe_open(next(folder.glob("*.safetensors")), "pt") as tensors:
        kept = {name: tensors.get_tensor(name) for name in index["weight_map"] if name != "model.norm.weight"}
    save_file(kept, next(folder.glob("*.safetensors")), metadata={"format": "pt"})
    del index["weight_map"]["model.norm.weight"]
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    third = short(text, tmp_path / "third", total_steps=1, model={"path": str(folder)})
    assert "model.norm.weight" in only_code(third.run(1), 20)["message"]
