"""S0-05: the report draws ROUGE-L over the number of instruction sets, one line for each set of questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trainrun_trainer.reporting import write_report
from trainrun_trainer.reporting.instructions import number_of_sets

from tests.report.pages import Page
from tests.trainer import stage_folders as folders

TITLE = "Instruction sets against ROUGE"


def data(*names: str, mix: dict[str, float] | None = None) -> dict[str, Any]:
    """A resolved configuration with these sets, and text that is no set."""
    sources: dict[str, Any] = {"prose": {"path": "/prose", "instruct": None}}
    sources |= {name: {"path": f"/{name}", "instruct": {}} for name in names}
    return {"global_batch_rows": 8, "data": {"sources": sources, "mix": mix or {}}}


def asked(root: Path, model: str, **rouge: float) -> dict[str, Any]:
    """An evaluation beside "base", with these values of ROUGE-L."""
    found = folders.evaluation(root, "base", model)
    values = {"baseline": 0.02}
    found["questions"] = {
        name: {
            column: {"rouge1": 0.0, "rouge2": 0.0, "rougeL": of, "exact_match": 0.0}
            for column, of in (*values.items(), ("model", value))
        }
        for name, value in rouge.items()
    }
    return found


def page(root: Path, *tuned: tuple[str, dict[str, Any], dict[str, float]]) -> Page:
    """Of models tuned on the base."""
    folders.train_stage(root, "base", 0, (7.0, 4.8))
    names = ["base"]
    for number, (name, config, rouge) in enumerate(tuned, 1):
        folders.train_stage(root, name, 40 * number, (6.6, 4.5), config=config)
        folders.evaluate_stage(root, f"judged-{name}", 40 * number + 30, asked(root, name, **rouge))
        names += [name, f"judged-{name}"]
    write_report(root, names, "Sets", root / "out")
    return Page(root / "out" / "report.html")


def test_each_set_of_questions_has_a_line_and_their_mean(tmp_path: Path) -> None:
    """From the untuned baseline on; the lines' distance is the spread."""
    shown = page(
        tmp_path,
        ("three", data("a", "b", "c"), {"a": 0.3, "b": 0.5}),
        ("one", data("a"), {"a": 0.6, "b": 0.0}),
    )
    assert f"<h2>{TITLE}</h2>" in shown.source and "ROUGE-L, over instruction sets." in shown.text
    for words in ("a, instruction sets 1: 0.6", "b, instruction sets 3: 0.5", "mean, instruction sets 0: 0.02"):
        assert words in shown.source
    assert "mean, instruction sets 3: 0.4" in shown.source
    assert shown.source.index("a, instruction sets 0") < shown.source.index("a, instruction sets 1")


@pytest.mark.parametrize("number", [("a",), ("a", "b")], ids=len)
def test_one_number_of_sets_is_no_curve(tmp_path: Path, number: tuple[str, ...]) -> None:
    """However many models have it."""
    shown = page(tmp_path, ("x", data(*number), {"a": 0.3}), ("y", data(*number), {"a": 0.4}))
    assert TITLE not in shown.source


@pytest.mark.parametrize(
    ("config", "number"),
    [
        ({}, 0),
        (data(), 0),
        (data("a", "b"), 2),
        (data("a", "b", mix={"prose": 1, "a": 0.5, "b": 0}), 1),
    ],
)
def test_sets_that_are_trained_on_count(config: dict[str, Any], number: int) -> None:
    """A weight of 0 is measured, not trained on; prose is no set."""
    assert number_of_sets(config) == number
