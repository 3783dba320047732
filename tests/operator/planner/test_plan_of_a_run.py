"""`trainrun plan -f`: precision, mesh and activation checkpointing are those of the run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from trainrun_operator.planner.hardware import MACHINES
from trainrun_operator.planner.objections import is_impossible, objections
from trainrun_operator.planner.plan import Mesh, Wish, make_plan
from trainrun_operator.planner.shapes import nearest

from tests.operator.planner.asking import HYPERPOD, said, written


def planned(tmp_path: Path, *options: str, **config: Any) -> dict[str, Any]:
    """The JSON plan of example 02, an 8B model on 32 GPUs, with these sections of its configuration."""
    plan: dict[str, Any] = json.loads(said("-f", written(tmp_path, config), "--params", "8B", "--json", *options))
    return plan


def test_the_example_fits_on_its_own_machines() -> None:
    """What we ship; without recomputing it would not (106 GB of 85.9)."""
    plan: dict[str, Any] = json.loads(said("-f", str(HYPERPOD), "--params", "8B", "--json"))
    assert not [text for text in plan["objections"] if "fit" in text]


def test_fp32_is_planned_with_the_peak_of_fp32(tmp_path: Path) -> None:
    """67 of 989 TFLOP/s: 15 times the days."""
    slow, fast = planned(tmp_path, precision="fp32"), planned(tmp_path, precision="bf16")
    assert slow["days"] / fast["days"] == pytest.approx(989 / 67)
    assert slow["utilisation"]["is_measured"] is False
    assert slow["memory"]["copies"] == 0
    (sentence,) = [text for text in slow["objections"] if text.startswith("config.precision=fp32")]
    assert (
        "the matrix units of H100 80 GB are not used, 67 TFLOP/s are left of 989; set config.precision: bf16"
        in sentence
    )
    assert not any("config.precision" in text for text in fast["objections"])


def test_a_run_that_says_no_precision_computes_in_fp32(tmp_path: Path) -> None:
    """The default of the configuration, not that of the planner."""
    plan = planned(tmp_path, precision=None)
    assert plan["wish"]["precision"] == "fp32"
    assert "of the fp32 peak" in said("-f", written(tmp_path, {"precision": None}), "--params", "8B")


def test_flags_mean_bf16_and_say_so(tmp_path: Path) -> None:
    """Nobody else says it."""
    text = said("--params", "8B", "--instance", "p5.48xlarge", "--devices", "32")
    assert "of the bf16 peak" in text
    assert "bf16 is assumed" in text
    assert "bf16 is assumed" not in said("-f", written(tmp_path, {}), "--params", "8B")


def test_nothing_published_in_bf16_speaks_against_fp32() -> None:
    """Above 60% of its peak nothing is known; above 100% it is impossible as ever."""
    wish = {"parameters": 8e9, "machine": MACHINES["ml.p5.48xlarge"], "devices": 8, "shape": nearest(8e9)}
    high, over = (make_plan(Wish(**wish, tokens=1e9, precision="fp32", utilisation=u)) for u in (0.8, 1.2))  # type: ignore[arg-type]
    assert not any(text.startswith("doubtful") for text in objections(high))
    assert objections(over)[0].startswith("impossible")


def test_the_mesh_is_the_run_s(tmp_path: Path) -> None:
    """4 x 8 of the example; without a word all workers share the states."""
    assert planned(tmp_path)["shards"] == 8
    alone = planned(tmp_path, parallel=None)
    assert alone["shards"] == 32
    assert alone["memory"]["states"] == 16 * 8e9 / 32
    text = said("-f", written(tmp_path, {"parallel": None, "activation_checkpointing": "full"}), "--params", "8B")
    assert "states shared by 32 as config.parallel says (8 would do)" in text


def test_a_mesh_that_does_not_fit_is_impossible(tmp_path: Path) -> None:
    """Though another one would do."""
    plan = planned(tmp_path, parallel={"dp_replicate": 32, "dp_shard": 1})
    assert (plan["shards"], plan["fewest_shards"]) == (1, 8)
    assert plan["objections"][1].startswith(
        "impossible: config.parallel: one copy of the states shared by 1 device, 32 times, needs"
    )
    assert plan["objections"][1].endswith("set dp_shard: 8 and dp_replicate: 4")


def test_a_mesh_on_too_few_devices() -> None:
    """No mesh of them would do; of very long rows none at all."""
    few = make_plan(Wish(70e9, 1e12, MACHINES["ml.p5.48xlarge"], 8, nearest(70e9), mesh=Mesh()))
    assert is_impossible(few)
    assert objections(few)[0].endswith("take more devices, LoRA, or a smaller micro-batch")
    wide = make_plan(replace(few.wish, devices=4096, row_tokens=65_536))
    assert (
        "of it are on each, however many there are: take devices with more memory, shorter rows" in objections(wide)[0]
    )


def test_other_devices_must_fill_the_mesh(tmp_path: Path) -> None:
    """An option may come before the file's workers, not beside its mesh."""
    file = written(tmp_path, {})
    text = said("-f", file, "--params", "8B", "--devices", "24", code=2)
    assert "config.parallel: dp_replicate=4 x dp_shard=8 does not fill 24 worker processes" in text
    free = written(tmp_path, {"parallel": {"dp_replicate": 4}})
    assert json.loads(said("-f", free, "--params", "8B", "--devices", "24", "--json"))["shards"] == 6
    assert "dp_replicate=4 does not fill 30" in said("-f", free, "--params", "8B", "--devices", "30", code=2)


def test_activation_checkpointing_is_the_run_s(tmp_path: Path) -> None:
    """Nobody is told to do what is done."""
    none, half, full = (planned(tmp_path, activation_checkpointing=one) for one in ("none", "every 2", "full"))
    assert none["memory_bytes"] > half["memory_bytes"] > full["memory_bytes"] == full["memory_bytes_recomputed"]
    assert any("activation_checkpointing=full" in text for text in none["objections"])
    assert not any("activation_checkpointing" in text for text in full["objections"])


def test_adapters_hold_the_model_in_fp32(tmp_path: Path) -> None:
    """4 bytes a frozen parameter, 16 a trained one, over 8 workers."""
    plan = planned(tmp_path, lora={"r": 16})
    assert plan["memory"]["states"] == (4 * 8e9 + 16 * 6_815_744) / 8


def test_worker_processes_share_a_neuron_device(tmp_path: Path) -> None:
    """32 workers of a trn1 are 16 devices; each worker has half of one's memory."""
    run = yaml.safe_load(HYPERPOD.read_text())
    run["spec"]["workers"] |= {"replicas": 1, "devicesPerWorker": 32, "accelerator": "neuron",
                               "instanceType": "ml.trn1.32xlarge"}  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    plan = json.loads(said("-f", str(tmp_path / "run.yaml"), "--params", "8B", "--json"))
    assert (plan["wish"]["devices"], plan["nodes"], plan["shards"]) == (16, 1, 8)
    assert "impossible: config.parallel: one copy of the states shared by 8 worker processes, 4 times," in str(plan)
    assert "Trainium 1 has 17.2 GB for each of its 2 worker processes, of which 90% may be filled" in str(plan)


def test_a_run_with_its_own_program(tmp_path: Path) -> None:
    """Of which the file does not say the model."""
    run = yaml.safe_load(HYPERPOD.read_text())
    del run["spec"]["config"]
    run["spec"]["command"] = ["python", "own.py"]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    assert "spec.command: the run brings its own program" in said("-f", str(tmp_path / "run.yaml"), code=2)
