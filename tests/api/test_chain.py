"""Configurations of stages are mappings to the API server: `validate` (and with it the operator) checks them."""

from __future__ import annotations

from typing import Any

import pytest
from trainrun_api.stages import result_stage_as_written
from trainrun_api.validate import validate

from tests.api.manifests import good, merged

TEXTS = {"name": "texts", "kind": "prepare"}
BASE = {"name": "base", "kind": "train"}
TUNED = {
    "name": "tuned",
    "kind": "train",
    "config": {"model": {"path": "stage:base"}, "data": {"tokenizer": {"path": "stage:base"}}},
    "workers": {"replicas": 4},
}
SETS = {"perplexity": {"domain": {"prepared": "stage:texts/data", "source": "domain"}}}
AFTER = {"name": "after", "kind": "evaluate", "config": {"model": "stage:tuned", "baseline": "stage:base", **SETS}}
CURVE = {"name": "curve", "kind": "evaluate", "config": {"checkpoints": "stage:tuned/checkpoints", **SETS}}
WHOLE = {"name": "whole", "kind": "consolidate", "config": {"checkpoint": "stage:base/checkpoints"}}
MERGED = {"name": "merged", "kind": "merge", "config": {"method": "slerp", "models": ["stage:base", "stage:tuned"]}}
PAGE = {"name": "page", "kind": "report", "config": {"title": "What became of it"}}
ALL = [TEXTS, BASE, TUNED, AFTER, WHOLE, MERGED, PAGE]


def said(*stages: dict[str, Any]) -> list[tuple[str, str]]:
    """Paths and sentences about a run of these stages."""
    manifest = merged(good(), {"spec": {"stages": list(stages)}})
    return [(problem.path, problem.message) for problem in validate(manifest)]


def with_config(stage: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The stage with fields of its config replaced."""
    return {**stage, "config": {**stage.get("config", {}), **fields}}


def test_a_whole_life_cycle_is_taken() -> None:
    """Every kind, with references to what came before."""
    assert said(*ALL) == []


@pytest.mark.parametrize(
    ("stages", "stage"),
    [
        (ALL, "merged"),
        ([TEXTS, BASE, TUNED, AFTER], "tuned"),
        ([BASE, WHOLE, PAGE], "whole"),
        ([BASE], None),
        ([], None),
        ([TEXTS], None),
        ([BASE, {"name": "new", "kind": "of a later version"}], "base"),
    ],
    ids=["merge", "train", "consolidate", "trains only", "names none", "makes none", "unknown kind"],
)
def test_a_run_that_follows_starts_from_the_last_model(stages: list[dict[str, Any]], stage: str | None) -> None:
    """None: from what lies in checkpoint.path itself."""
    assert result_stage_as_written({"stages": stages}) == stage


def test_adapters_are_merged_with_their_model() -> None:
    """Kind merge, instead of a method."""
    lora = with_config(TUNED, lora={"r": 4})
    joined = {"name": "joined", "kind": "merge", "config": {"models": ["stage:base"], "adapter": "stage:tuned"}}
    assert said(TEXTS, BASE, lora, joined) == []
    ((path, sentence),) = said(TEXTS, BASE, lora, with_config(joined, t=0.5))
    assert path == "spec.stages[joined].config"
    assert sentence.endswith("adapter goes with the one model that it was trained on, not with t")


def test_adapters_of_the_whole_run_are_those_of_its_stages() -> None:
    """The stage itself does not say that it trains adapters."""
    pretrained = {
        "model": {"path": "/m", "architecture": None},
        "data": {"tokenizer": {"path": "/m", "vocab_size": None}},
    }
    stages = [TEXTS, {"name": "tuned", "kind": "train"}, CURVE]
    manifest = merged(good(), {"spec": {"stages": stages, "config": pretrained}})
    assert validate(manifest) == []
    (problem,) = validate(merged(manifest, {"spec": {"config": {"lora": {}}}}))
    assert problem.path == "spec.stages[curve].config.checkpoints" and "holds adapters" in problem.message


CASES: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "wrong type": (
        [TEXTS, with_config(BASE, total_steps="many")],
        "spec.stages[base].config.total_steps",
        "spec.stages[base].config.total_steps=many is a string; use an integer",
    ),
    "unknown field": (
        [TEXTS, with_config(BASE, totl_steps=3)],
        "spec.stages[base].config.totl_steps",
        "spec.stages[base].config.totl_steps is not a field; did you mean total_steps?",
    ),
    "a rule": (
        [TEXTS, with_config(BASE, model={"path": "/models/a"})],
        "spec.stages[base].config.data",
        "spec.stages[base].config.data.tokenizer.path is missing beside spec.stages[base].config.model.path; a "
        "pretrained model understands only its own tokens, so give the folder of its tokenizer",
    ),
    "workers that the batch does not fit": (
        [TEXTS, {**BASE, "workers": {"replicas": 3}}],
        "spec.config",
        "spec.config.global_batch_rows=8 is not a multiple of micro_batch_rows=2 x 3 data-parallel ranks "
        "(spec.stages[base].workers.replicas x devicesPerWorker / tp); use a multiple of 6",
    ),
    "field of another kind": (
        [TEXTS, BASE, with_config(AFTER, model="stage:base", total_steps=3)],
        "spec.stages[after].config.total_steps",
        "spec.stages[after].config.total_steps is not a field; use one of accelerator, baseline, batch_tokens, "
        "checkpoints, labels, lm_eval, model, perplexity, precision, questions, threads",
    ),
    "missing field": (
        [TEXTS, BASE, with_config(WHOLE) | {"config": {}}],
        "spec.stages[whole].config.checkpoint",
        "spec.stages[whole].config.checkpoint is missing; it is required (store of the checkpoint, as "
        "stage:NAME/checkpoints)",
    ),
    "nothing to compare": (
        [TEXTS, BASE, {"name": "after", "kind": "evaluate", "config": {"model": "stage:base", **SETS}}],
        "spec.stages[after].config",
        "spec.stages[after].config baseline is needed beside model; name the folder of the unmodified model",
    ),
    "a later stage": (
        [BASE, {"name": "first", "kind": "consolidate", "config": {"checkpoint": "stage:late/checkpoints"}},
         {"name": "late", "kind": "train"}],
        "spec.stages[first].config.checkpoint",
        "spec.stages[first].config.checkpoint=stage:late/checkpoints names no earlier stage; use stage:base",
    ),
    "itself, as the first": (
        [with_config(BASE, model={"path": "stage:base"}, data={"tokenizer": {"path": "/t"}}), TEXTS],
        "spec.stages[base].config.model.path",
        "spec.stages[base].config.model.path=stage:base names no earlier stage; use no stage, for this is the first",
    ),
    "a part that the kind does not have": (
        [TEXTS, BASE, WHOLE, with_config(AFTER, model="stage:whole/checkpoints")],
        "spec.stages[after].config.model",
        "spec.stages[after].config.model=stage:whole/checkpoints names nothing that a stage of kind consolidate has; "
        "use stage:whole",
    ),
    "a curve of adapters": (
        [TEXTS, BASE, with_config(TUNED, lora={}), CURVE],
        "spec.stages[curve].config.checkpoints",
        "spec.stages[curve].config.checkpoints=stage:tuned/checkpoints holds adapters and no model; merge them by a "
        "stage of kind merge with adapter: stage:tuned, and use its result",
    ),
    "a checkpoint of adapters": (
        [TEXTS, BASE, with_config(TUNED, lora={}), with_config(WHOLE, checkpoint="stage:tuned/checkpoints")],
        "spec.stages[whole].config.checkpoint",
        "spec.stages[whole].config.checkpoint=stage:tuned/checkpoints holds adapters and no model; merge them by a "
        "stage of kind merge with adapter: stage:tuned, and use its result",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_with_a_stage_is_said_with_its_field(case: str) -> None:
    """One sentence, with the path that the user wrote."""
    stages, path, sentence = CASES[case]
    problems = said(*stages)
    assert problems
    assert problems[0][0] == path
    assert problems[0][1] == sentence


def test_what_is_wrong_with_the_run_itself_is_said_once() -> None:
    """Not again for each stage."""
    manifest = merged(good(), {"spec": {"stages": ALL, "config": {"micro_batch_rows": 3}}})
    assert len(validate(manifest)) == 1
