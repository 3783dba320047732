"""`trainrun plan`: from flags, from a file, several at once, and what it says to nonsense."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from trainrun_operator.planner.hardware import MACHINES
from trainrun_operator.planner.memory import HEADROOM
from trainrun_operator.planner.objections import objections
from trainrun_operator.planner.plan import Wish, make_plan
from trainrun_operator.planner.shapes import nearest

from tests.operator.planner.asking import EXAMPLES, said

LOCAL = EXAMPLES / "01-local" / "run.yaml"


def test_a_size_is_enough_with_machines() -> None:
    """S0-16: 6.6B needs 132B tokens and just under 7 days on 64 A100."""
    text = said("--params", "6.6B", "--instance", "p4d.24xlarge", "--devices", "64")
    assert "6.6B parameters, 132B tokens, 64 x A100 40 GB (8 x ml.p4d.24xlarge)" in text
    assert "6.6 days without faults" in text


def test_tokens_are_enough_too() -> None:
    """The other way round."""
    assert said("--tokens", "132B", "--instance", "p4d.24xlarge", "--devices", "64").startswith("6.6B parameters")


def test_several_make_a_table() -> None:
    """A row for each number of devices, a column for each size, then bars."""
    text = said("--params", "6.6B,13B", "--devices", "64,128", "--instance", "ml.p4d.24xlarge")
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line]
    assert rows == [["64", "8", "6.6", "24.0"], ["128", "16", "3.3", "12.0"]]
    assert "█" in text


def test_a_run_s_file_says_nearly_all() -> None:
    """The exact model, tokens, devices and steps; options win."""
    plan = json.loads(said("-f", str(LOCAL), "--instance", "p5.48xlarge", "--json"))
    assert plan["steps"] == 200
    assert plan["wish"]["tokens"] == 200 * 8 * 128
    assert plan["wish"]["is_shape_assumed"] is False
    assert json.loads(said("-f", str(LOCAL), "--instance", "p5.48xlarge", "--devices", "8", "--json"))["nodes"] == 1


def test_a_file_whose_model_is_another_runs_result(tmp_path: Path) -> None:
    """Its sizes stand nowhere in the file."""
    run = yaml.safe_load(LOCAL.read_text())
    run["spec"]["resume"] = {"from": "Run", "run": "base"}
    run["spec"]["config"]["model"] = {}
    run["spec"]["config"]["data"]["tokenizer"] = {}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    asked = ("-f", str(tmp_path / "run.yaml"), "--instance", "p5.48xlarge")
    assert "spec.resume.run gives the model, whose sizes are not known here; give --params" in said(*asked, code=2)
    assert said(*asked, "--params", "8B").startswith("8B parameters")


def test_a_file_whose_model_lies_elsewhere(tmp_path: Path) -> None:
    """The size may be given."""
    text = said("-f", str(EXAMPLES / "02-hyperpod" / "run.yaml"), "--params", "8B")
    assert "20,000 of 256 rows of 4096 tokens" in text


def test_a_folder_s_config_is_read(tmp_path: Path) -> None:
    """transformers' own words."""
    sizes = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
             "num_key_value_heads": 8, "vocab_size": 128256}  # fmt: skip
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(sizes))
    text = (EXAMPLES / "02-hyperpod" / "run.yaml").read_text().replace("/fsx/models/llama-3.1-8b", "model")
    (tmp_path / "run.yaml").write_text(text)
    plan = json.loads(said("-f", str(tmp_path / "run.yaml"), "--json"))
    assert plan["wish"]["parameters"] == 8_030_261_248
    adapted = text.replace("    precision: bf16\n", "    precision: bf16\n    lora: {TARGETS}\n")
    (tmp_path / "run.yaml").write_text(adapted.replace("TARGETS", "r: 16"))
    assert json.loads(said("-f", str(tmp_path / "run.yaml"), "--json"))["wish"]["trainable"] == 6_815_744
    (tmp_path / "run.yaml").write_text(adapted.replace("TARGETS", "target_modules: [Wqkv]"))
    assert "config.lora.target_modules: Wqkv is no module of a Llama-like layer" in said(
        "-f", str(tmp_path / "run.yaml"), code=2
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give --params (a model's size, such as 6.6B), --tokens, or -f with a TrainingRun's file"),
        (["--params", "7B"], "give --instance"),
        (["--params", "big", "--instance", "p5.48xlarge", "--devices", "8"], "'big' is no number above 0"),
        (
            ["--params", "7B", "--instance", "p9", "--devices", "8"],
            "instance type p9 is not in the planner's catalogue",
        ),
        (["-f", str(LOCAL)], "spec.workers.instanceType is not set"),
        (["-f", str(EXAMPLES / "02-hyperpod" / "run.yaml")], "its sizes cannot be read here"),
        (
            [
                "--params",
                "7B",
                "--instance",
                "p5.48xlarge",
                "--devices",
                "8",
                "--lora-rank",
                "8",
                "--lora-targets",
                "x",
            ],
            "x is none of q_proj",
        ),
    ],
)
def test_nonsense_gets_a_sentence(arguments: list[str], sentence: str) -> None:
    """Exit code 2, as for other wrong arguments."""
    assert sentence in said(*arguments, code=2)


def test_a_bad_file_is_refused_as_validate_does(tmp_path: Path) -> None:
    """Exit code 20."""
    (tmp_path / "run.yaml").write_text(LOCAL.read_text().replace("total_steps: 200", "total_steps: 0"))
    assert "total_steps" in said("-f", str(tmp_path / "run.yaml"), code=20)


def test_states_are_shared_until_they_fit() -> None:
    """16 bytes a parameter: 70B need 1.1 TB."""
    wish = Wish(70e9, 1e12, MACHINES["ml.p5.48xlarge"], 64, nearest(70e9))
    plan = make_plan(wish)
    assert plan.shards is not None
    assert plan.recomputed.total <= HEADROOM * wish.machine.chip.memory_bytes
    assert plan.memory.states == 16 * 70e9 / plan.shards
    few = make_plan(Wish(70e9, 1e12, MACHINES["ml.p5.48xlarge"], 8, nearest(70e9)))
    assert few.shards is None
    assert objections(few)[0].startswith("impossible: even shared by 8 devices")


def test_what_is_assumed_is_said() -> None:
    """Nothing is published for the newest chips, and nothing for toy models."""
    newest = make_plan(Wish(7e9, 140e9, MACHINES["ml.p6-b200.48xlarge"], 8, nearest(7e9)))
    assert any("nothing is published for B200" in sentence for sentence in objections(newest))
    toy = make_plan(Wish(7e6, 140e6, MACHINES["ml.p5.48xlarge"], 8, nearest(7e6)))
    assert any("nearest size measured" in sentence for sentence in objections(toy))
