"""`trainrun plan -f` of a run of several stages: each train stage as it will be, and their sum."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.operator.planner.asking import STORY, said, written

STAGES: list[dict[str, Any]] = [
    {"name": "base", "kind": "train"},
    {
        "name": "tuned", "kind": "train", "workers": {"replicas": 1, "instanceType": "ml.p4de.24xlarge"},
        "config": {"model": {"path": "stage:base"}, "total_steps": 500, "lora": {"r": 16}, "precision": "fp32",
                   "parallel": {"dp_replicate": 1}},
    },
    {"name": "merged", "kind": "merge", "config": {"adapter": "stage:tuned", "models": ["stage:base"]}},
    {
        "name": "last", "kind": "train",
        "config": {"model": {"path": "stage:merged"}, "data": {"tokenizer": {"path": "stage:merged"}}},
    },
]  # fmt: skip
SIZES = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 8, "vocab_size": 128256}  # fmt: skip


@pytest.fixture
def chain(tmp_path: Path) -> str:
    """Example 02 with three train stages and a merge; the model's folder lies beside it."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(SIZES))
    return written(tmp_path, {"model": {"path": "model"}}, STAGES)


def test_each_train_stage_has_its_own_plan(chain: str) -> None:
    """Model, steps, adapters, precision, workers and machine are the stage's."""
    plans = {plan["stage"]: plan for plan in json.loads(said("-f", chain, "--json"))["stages"]}
    assert list(plans) == ["base", "tuned", "last"]
    assert {plan["wish"]["parameters"] for plan in plans.values()} == {8_030_261_248}
    assert [plan["steps"] for plan in plans.values()] == [20_000, 500, 20_000]
    assert [plan["wish"]["trainable"] for plan in plans.values()] == [None, 6_815_744, None]
    assert [plan["wish"]["precision"] for plan in plans.values()] == ["bf16", "fp32", "bf16"]
    assert [plan["wish"]["devices"] for plan in plans.values()] == [32, 8, 32]
    assert plans["tuned"]["wish"]["chip"] == "A100 80 GB"


def test_the_total_is_the_sum(chain: str) -> None:
    """In JSON; a machine without a price makes the cost unknown."""
    answer = json.loads(said("-f", chain, "--json"))
    assert answer["total"]["days"] == pytest.approx(sum(plan["days"] for plan in answer["stages"]))
    assert answer["total"]["device_days"] == pytest.approx(sum(plan["device_days"] for plan in answer["stages"]))
    assert answer["total"]["cost_usd"] is None
    assert answer["not_planned"] == ["merged (merge)"]
    priced = json.loads(said("-f", chain, "--price", "40", "--json"))
    assert priced["total"]["cost_usd"] == pytest.approx(sum(plan["cost_usd"] for plan in priced["stages"]))


def test_a_table_of_stages(chain: str) -> None:
    """After the plan of each; what is no training is named."""
    text = said("-f", chain)
    assert [line for line in text.splitlines() if line.startswith("stage ")] == [
        "stage base",
        "stage tuned",
        "stage last",
    ]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line]
    assert [row[0] for row in rows] == ["base", "tuned", "last", "total"]
    assert rows[-1][-1] == "unknown"
    assert "not planned, for each is one process for a while: merged (merge)" in text


def test_one_stage_may_be_chosen(chain: str) -> None:
    """Then options of one training are fine, too."""
    plan = json.loads(said("-f", chain, "--stage", "tuned", "--json"))
    assert plan["wish"]["trainable"] == 6_815_744
    assert len(json.loads(said("-f", chain, "--stage", "base", "--params", "7B,13B", "--json"))) == 2
    assert json.loads(said("-f", chain, "--stage", "tuned", "--days", "3", "--json"))["days"] == pytest.approx(3)


def test_a_random_start_goes_on_as_the_same_model() -> None:
    """Example 11: sizes from the first stage's configuration, vocabulary from its tokenizer."""
    answer = json.loads(said("-f", str(STORY), "--instance", "p5.48xlarge", "--json"))
    assert [plan["stage"] for plan in answer["stages"]] == ["base", "cpt-0", "cpt-1", "cpt-5"]
    assert {plan["wish"]["shape"]["vocabulary"] for plan in answer["stages"]} == {2048}
    assert len({plan["wish"]["parameters"] for plan in answer["stages"]}) == 1


def test_what_cannot_be_said_of_several_stages(chain: str, tmp_path: Path) -> None:
    """Exit code 2 and a sentence."""
    for option in (["--tokens", "1B"], ["--days", "3"], ["--lora-rank", "8"], ["--devices", "32,64"]):
        assert "choose one with --stage, of base, tuned, last" in said("-f", chain, *option, code=2)
    assert "--stage merged: the run's train stages are base, tuned, last" in said(
        "-f", chain, "--stage", "merged", code=2
    )
    flags = ("--params", "8B", "--instance", "p5.48xlarge", "--devices", "8")
    assert "--stage base: give -f" in said(*flags, "--stage", "base", code=2)
    none = written(tmp_path, {}, [{"name": "data", "kind": "prepare"}])
    assert "spec.stages: none is of kind train" in said("-f", none, code=2)


def test_a_stage_that_makes_no_model(tmp_path: Path) -> None:
    """Of which a stage cannot start."""
    stages = [
        {"name": "data", "kind": "prepare"},
        {"name": "kept", "kind": "consolidate", "config": {"checkpoint": "/fsx/checkpoints/other"}},
        {"name": "judged", "kind": "evaluate", "config": {"model": "stage:kept", "baseline": "/fsx/models/llama-3.1-8b",
         "perplexity": {"legal": {"path": "/fsx/text/legal"}}}},
        {"name": "again", "kind": "train", "config": {"model": {"path": "stage:judged"}}},
    ]  # fmt: skip
    text = said("-f", written(tmp_path, {}, stages), code=2)
    assert "stage:judged: a stage of kind evaluate makes no model; give --params" in text
    stages[-1]["config"] = {"model": {"path": "stage:kept"}}
    assert "its sizes cannot be read here" in said("-f", written(tmp_path, {}, stages), code=2)
