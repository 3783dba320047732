"""What more instruction sets gave: ROUGE-L of each set of questions over the number of sets (S0-05)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from trainrun_api.evaluation import TITLES
from trainrun_api.page.chart import Axis
from trainrun_api.page.document import section
from trainrun_api.page.markup import Markup, el

from trainrun_trainer.reporting.comparing import Comparison
from trainrun_trainer.reporting.curves import drawn
from trainrun_trainer.reporting.records import Stage

SETS = Axis("instruction sets", lambda value: f"{value:g}")
MEASURE = f"{TITLES['rougeL']}, "
MEAN = "mean"


def more_sets(compared: Sequence[Comparison], stages: Sequence[Stage]) -> Markup | None:
    """A drawing for each baseline beside which models of different numbers of sets were asked; no direction is
    claimed, the lines' distance is the spread."""
    numbers = {stage.name: number for stage in stages if (number := number_of_sets(stage.config))}
    figures = [figure for one in compared for figure in _figures(one, numbers)]
    return section("Instruction sets against ROUGE", el("div", figures, class_="pair")) if figures else None


def number_of_sets(config: Mapping[str, Any]) -> int:
    """Sources of instructions that are trained on. A mix that names nothing has all of them."""
    data = config.get("data") or {}
    mix: Mapping[str, float] = data.get("mix") or {}
    instructs = [name for name, source in (data.get("sources") or {}).items() if source.get("instruct") is not None]
    return sum(not mix or mix.get(name, 0) > 0 for name in instructs)


def _figures(of: Comparison, numbers: Mapping[str, int]) -> list[Markup]:
    """The baseline stands at the sets that it was tuned on: 0 where this page knows of none."""
    columns = {column: numbers.get(column, 0) for column in (of.baseline, *(m for m in of.models if m in numbers))}
    asked = {one.title.removeprefix(MEASURE): one.values for one in of.measures if one.title.startswith(MEASURE)}
    if len({number for column, number in columns.items() if column != of.baseline}) < 2 or not asked:
        return []
    places = sorted(columns, key=lambda column: columns[column])
    lines = {
        name: [(float(columns[column]), values[column]) for column in places if column in values]
        for name, values in asked.items()
    }
    of_all = [column for column in places if all(column in values for values in asked.values())]
    if len(lines) > 1 and of_all:
        lines[MEAN] = [(float(columns[column]), mean(values[column] for values in asked.values())) for column in of_all]
    return drawn("ROUGE-L", list(lines.items()), SETS)
