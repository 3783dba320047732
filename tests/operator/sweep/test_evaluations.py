"""What evaluate stages measured stands beside each other, run by run (S0-02, S0-05)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trainrun_api.page.words import UNKNOWN
from trainrun_operator.sweep.evaluations import cells, heads, lines, read_measured
from trainrun_operator.sweep.page import sweep_page
from trainrun_operator.sweep.results import Row
from trainrun_operator.sweep.variants import Axis


def write(root: Path, stage: str, kind: str, found: Any) -> None:
    """A stage's record and its result."""
    folder = root / "stages" / stage
    (folder / "a1").mkdir(parents=True)
    record = {"name": stage, "kind": kind, "folder": f"stages/{stage}/a1", "result": f"stages/{stage}/a1"}
    (folder / "stage.json").write_text(json.dumps(record))
    (folder / "a1" / "evaluation.json").write_text(found if isinstance(found, str) else json.dumps(found))


def evaluation(perplexity: float, rouge: float) -> dict[str, Any]:
    """evaluation.json."""
    answers = {"rouge1": rouge, "rouge2": rouge, "rougeL": rouge, "exact_match": rouge}
    return {
        "perplexity": {"law": {"baseline": {"perplexity": 99.0}, "model": {"perplexity": perplexity}}},
        "questions": {"terms": {"baseline": answers, "model": answers}}, "labels": {}, "lm_eval": {},
    }  # fmt: skip


def row(run: str, value: Any, **measured: dict[str, float]) -> Row:
    return Row(run, (value,), "Succeeded", 4, 1.0, {}, measured)


def test_a_models_values_are_read_stage_by_stage(tmp_path: Path) -> None:
    """Not those of its baseline, and of evaluate stages only."""
    write(tmp_path, "judged", "evaluate", evaluation(20.0, 0.5))
    write(tmp_path, "other", "report", evaluation(1.0, 1.0))
    found = read_measured(tmp_path)
    assert list(found) == ["judged"]
    assert found["judged"]["perplexity, law"] == 20.0 and found["judged"]["ROUGE-L, terms"] == 0.5


@pytest.mark.parametrize("damaged", ["", "{", "[]", "{}", '{"perplexity": 3}', '{"perplexity": {"law": {"model": 3}}}'])
def test_what_is_damaged_is_left_out(tmp_path: Path, damaged: str) -> None:
    """As a run that is going on may show it."""
    write(tmp_path, "judged", "evaluate", damaged)
    assert read_measured(tmp_path) == {}
    assert read_measured(tmp_path / "nothing") == {}


def test_measures_stand_together_and_runs_beside_each_other() -> None:
    """What a run has not is a dash."""
    rows = [row("r-0", 0, one={"p": 2.0, "q": 0.5}, two={"p": 3.0}), row("r-1", 1, one={"p": 4.0})]
    assert heads(rows) == ["measure", "stage", "r-0", "r-1"]
    assert lines(rows) == [("p", "one"), ("p", "two"), ("q", "one")]
    assert cells(rows, ("p", "one")) == ["p", "one", "2", "4"]
    assert cells(rows, ("q", "one")) == ["q", "one", "0.5", UNKNOWN]


@pytest.mark.parametrize(
    ("values", "words"),
    [((0, 0.05), "one, share 0.05: 4"), ((0, 0), "one, share 0: 4"), (("a", "b"), "one, run 1: 4")],
)
def test_the_page_draws_each_measure_over_what_was_swept(values: tuple[Any, Any], words: str) -> None:
    """Over the number of the run where the values are no numbers; no number at all is not drawn."""
    rows = [row("r-0", values[0], one={"p": 2.0}), row("r-1", values[1], one={"p": 4.0}, two={"q": float("inf")})]
    page = sweep_page("r", [Axis("config.share", values)], rows)
    assert words in page and page.count("<svg") == 1
    assert "<h2>What the stages measured</h2>" in page


def test_a_sweep_without_evaluations_says_nothing_of_them() -> None:
    assert "measured" not in sweep_page("r", [Axis("config.seed", (1,))], [row("r-0", 1)])
