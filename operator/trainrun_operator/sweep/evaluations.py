"""What the evaluate stages of a sweep's runs measured, run beside run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainrun_api.evaluation import MODEL, RESULT, measures
from trainrun_api.page.words import figure
from trainrun_api.store_files import read_object

from trainrun_operator.stores import stage_records
from trainrun_operator.sweep.results import Row


def read_measured(root: Path) -> dict[str, dict[str, float]]:
    """Evaluate stage -> measure -> the model's value, of the run whose checkpoint.path is `root`. Its baseline is in
    the report of the run itself. What has not ended or is damaged is left out."""
    found: dict[str, dict[str, float]] = {}
    for record in stage_records(root):
        if record.get("kind") != "evaluate" or not record.get("result"):
            continue
        try:
            told = dict(measures(read_object(root / str(record["result"]) / RESULT)))
        except (KeyError, TypeError, AttributeError):
            continue
        found[str(record["name"])] = {title: values[MODEL] for title, values in told.items() if MODEL in values}
    return found


def lines(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(measure, stage) of everything that a run measured; measures together, in the order of the stages."""
    pairs = dict.fromkeys((title, stage) for row in rows for stage, of in row.measured.items() for title in of)
    titles = list(dict.fromkeys(title for title, _ in pairs))
    return sorted(pairs, key=lambda pair: titles.index(pair[0]))


def heads(rows: Sequence[Row]) -> list[str]:
    """Of the table."""
    return ["measure", "stage", *(row.run for row in rows)]


def cells(rows: Sequence[Row], line: tuple[str, str]) -> list[str]:
    """A line of the table: a value of each run."""
    title, stage = line
    return [title, stage, *(figure(row.measured.get(stage, {}).get(title)) for row in rows)]
