"""Whole runs on instruction sets, and what an older or an impossible configuration meets at the start."""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name
from trainrun_api.train_config import TrainConfig
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.explain_step import open_run
from trainrun_trainer.model import forward
from trainrun_trainer.model_fit import refuse_unfit_model
from trainrun_trainer.setup import _refuse_another_run
from trainrun_trainer.step import slot_backward
from trainrun_trainer.storage import LocalDirectory
from transformers import LlamaForCausalLM

from tests.trainer.folders import save_model
from tests.trainer.runs import Site, only_code, tiny_config

SETS = ("describe", "continue")


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, Any]:
    """Two named instruction sets, made of Python's documentation."""
    for kind in SETS:
        (tmp_path / kind).mkdir()
        rows = [
            {"instruction": f"{kind.title()} {name}.", "response": " ".join(topics[name].split()[:20])}
            for name in sorted(topics)[:40]
        ]
        (tmp_path / kind / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = {kind: {"path": str(tmp_path / kind), "instruct": {}} for kind in SETS}
    return {
        "sources": sources, "mix": {"describe": 0.75, "continue": 0.25}, "tokenizer": {"vocab_size": 512},
        "row_tokens": 128, "held_out_share": 0.2,
    }  # fmt: skip


def test_a_run_on_instruction_sets(text: Path, tmp_path: Path, sets: dict[str, Any]) -> None:
    """S0-05, S2-35: named sets are sources; the loss is over the learned tokens of the global batch."""
    site = Site(text, tmp_path / "two", {"data": sets})
    (tmp_path / "two").mkdir()
    site.finish(2)
    steps, _ = site.metrics()
    assert set(next(line["eval"] for line in steps if line.get("eval"))) == set(SETS)
    losses = [line["loss"] for line in steps if line["loss"] is not None]
    assert losses[-1] < losses[0]
    run = open_run(LocalDirectory(site.store))
    number = run.rows.num_targets(1)
    model = LlamaForCausalLM.from_pretrained(site.store / "export", dtype=torch.float32, attn_implementation="sdpa")
    slots = [run.rows.slot(1, slot) for slot in range(12)]
    expected = sum(
        F.cross_entropy(forward(model, s.input_ids, s.position_ids).flatten(0, 1), s.targets.flatten(), reduction="sum")
        for s in slots
    )
    found = sum(slot_backward(model, slot, number, "fp32") for slot in slots)
    assert number == sum(int((slot.targets >= 0).sum()) for slot in slots) < 12 * 128
    torch.testing.assert_close(found, expected / number)


def test_a_row_beyond_the_context_is_refused(text: Path, tmp_path: Path) -> None:
    """Before any text is read."""
    save_model(tmp_path, "llama", max_position_embeddings=32)
    raw = tiny_config(text, model={"path": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"data\.row_tokens=48 is longer than .*max_position_embeddings=32\); use 32"):
        refuse_unfit_model(TrainConfig.model_validate(raw))
    raw["data"]["row_tokens"] = 32
    refuse_unfit_model(TrainConfig.model_validate(raw))
    del raw["data"]["row_tokens"]
    with pytest.raises(ConfigError, match=r"data\.row_tokens=4096 is longer than .*=32\); use 32 or less"):
        refuse_unfit_model(TrainConfig.model_validate(raw))


def test_a_checkpoint_from_before_a_field_goes_on(text: Path) -> None:
    """Its configuration lacks what came later; that is no other run. A field that is used is."""
    now = TrainConfig.model_validate(tiny_config(text)).model_dump(mode="json")
    then = json.loads(json.dumps(now))
    for name in ("dedupe", "contamination_words", "processes"):
        del then["data"][name]
    for source in then["data"]["sources"].values():
        for name in sorted(set(source) - {"path", "text_field"}):
            del source[name]
    manifest = {"config": then, "step": 3, "data_hash": "x"}
    _refuse_another_run(manifest, {"config": now, "data_hash": "x", "base": None})
    changed = {**now, "data": {**now["data"], "dedupe": {"near": True, "min_similarity": 0.8}}}
    with pytest.raises(ConfigError, match=r"config\.data is "):
        _refuse_another_run(manifest, {"config": changed, "data_hash": "x", "base": None})


def test_bad_instructions_end_a_run_with_21(text: Path, tmp_path: Path, sets: dict[str, Any]) -> None:
    """On every rank, with the sentence."""
    with open(tmp_path / "describe" / "x.jsonl", "a") as stream:
        stream.write(json.dumps({"instruction": "Say nothing.", "response": ""}) + "\n")
    site = Site(text, tmp_path / "bad", {"data": sets})
    (tmp_path / "bad").mkdir()
    outcome = only_code(site.run(2), 21)
    assert "file x.jsonl, line 41 has no response" in outcome["message"]
