"""What stages other than training say about themselves, and what is refused before a worker starts for it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from trainrun_api.stage_config import STAGE_CONFIGS

SETS = {"perplexity": {"general": {"path": "general.jsonl"}}}
FINE: list[tuple[str, dict[str, Any]]] = [
    ("evaluate", {**SETS, "model": "stage:cpt", "baseline": "stage:base"}),
    ("evaluate", {**SETS, "checkpoints": "stage:cpt/checkpoints"}),
    ("consolidate", {"checkpoint": "stage:cpt/checkpoints", "step": 40}),
    ("merge", {"method": "slerp", "models": ["stage:base", "stage:cpt"]}),
    ("merge", {"method": "ties", "models": ["a", "b", "c"], "sweep": {"over": [0.5, 1], "tasks": SETS}}),
    ("report", {}),
]
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "no baseline": ("evaluate", {**SETS, "model": "m"}, "baseline is needed beside model"),
    "nothing measured": ("evaluate", {"model": "m", "baseline": "b"}, "nothing is named that is to be measured"),
    "no model": ("evaluate", {**SETS, "baseline": "b"}, "exactly one of model and checkpoints"),
    "curve of labels": (
        "evaluate",
        {"checkpoints": "c", "labels": {"k": {"path": "x", "labels": {"a": "a", "b": "b"}}}},
        "checkpoints are compared by perplexity",
    ),
    "two places": (
        "evaluate",
        {"perplexity": {"general": {"path": "x", "prepared": "y"}}, "model": "m", "baseline": "b"},
        "exactly one of path and prepared",
    ),
    "prompt": (
        "evaluate",
        {"labels": {"k": {"path": "x", "labels": {"a": "a", "b": "b"}, "prompt": "?"}}, "model": "m", "baseline": "b"},
        "prompt='?' has no {text}",
    ),
    "positive": (
        "evaluate",
        {"labels": {"k": {"path": "x", "labels": {"a": "", "b": ""}, "positive": "c"}}, "model": "m", "baseline": "b"},
        "positive='c' is none of labels: a, b",
    ),
    "no checkpoint": ("consolidate", {}, "Field required"),
    "one model": ("merge", {"method": "linear", "models": ["a"]}, "expected at least 2 models"),
    "sweep of three by t": (
        "merge",
        {"method": "linear", "models": ["a", "b", "c"], "sweep": {"over": [0.5], "tasks": SETS}},
        "t is between two",
    ),
    "t twice": (
        "merge",
        {"method": "slerp", "models": ["a", "b"], "sweep": {"over": [0.5, 0.5], "tasks": SETS}},
        "each once",
    ),
    "sweep of nothing": (
        "merge",
        {"method": "slerp", "models": ["a", "b"], "sweep": {"over": [0.5], "tasks": {}}},
        "give sets under tasks.perplexity",
    ),
    "unknown": ("report", {"titel": "x"}, "Extra inputs are not permitted"),
}


@pytest.mark.parametrize(("kind", "config"), FINE)
def test_what_is_whole_is_taken(kind: str, config: dict[str, Any]) -> None:
    assert STAGE_CONFIGS[kind].model_validate(config)


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_does_not_fit_is_refused(case: str) -> None:
    kind, config, words = REFUSED[case]
    with pytest.raises(ValidationError) as refused:
        STAGE_CONFIGS[kind].model_validate(config)
    assert words in str(refused.value)


@pytest.mark.parametrize("kind", list(STAGE_CONFIGS))
def test_every_field_is_described(kind: str) -> None:
    """Also those of its parts."""
    for model in parts_of(STAGE_CONFIGS[kind]):
        assert model.__doc__
        assert all(field.description for field in model.model_fields.values()), model


def parts_of(model: type[BaseModel]) -> set[type[BaseModel]]:
    """The model and what it is made of."""
    found = {model}
    for field in model.model_fields.values():
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found |= parts_of(inner)
    return found
