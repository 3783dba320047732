"""What came of the runs of a sweep: one row each, as values for a table, JSON and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainrun_api.page.chart import Points
from trainrun_api.page.words import figure

from trainrun_operator.report import story
from trainrun_operator.report.records import RunRecords
from trainrun_operator.sweep.variants import Axis, Variant


@dataclass(frozen=True)
class Row:
    """One run."""

    run: str
    values: tuple[Any, ...]
    """One for each axis."""
    result: str
    """Succeeded, Failed, or the phase that it is in."""
    step: int | None
    loss: float | None
    """Of the last step."""
    perplexities: Mapping[str, Points]
    """Held-out source -> (step, perplexity)."""
    measured: Mapping[str, Mapping[str, float]]
    """Evaluate stage -> measure -> value."""

    def last(self, source: str) -> float | None:
        """The newest perplexity of a source."""
        points = self.perplexities.get(source, ())
        return points[-1][1] if points else None

    def first(self, source: str) -> float | None:
        """The one before the first step."""
        points = self.perplexities.get(source, ())
        return points[0][1] if points and points[0][0] == 0 else None


def row(variant: Variant, records: RunRecords | None, measured: Mapping[str, Mapping[str, float]]) -> Row:
    """None: the run has not begun."""
    if records is None:
        return Row(variant.name, variant.values, "not begun", None, None, {}, measured)
    losses = story.losses(records.learning[-1])
    step, _ = story.step_and_target(records)
    result = records.status.result or records.status.phase or "not begun"
    loss = losses[-1][1] if losses else None
    return Row(variant.name, variant.values, result, step, loss, story.perplexities(records.learning[-1]), measured)


def sources(rows: Sequence[Row]) -> list[str]:
    """All held-out sources."""
    return sorted({source for row in rows for source in row.perplexities})


def heads(axes: Sequence[Axis], rows: Sequence[Row]) -> list[str]:
    """Of the table."""
    held_out = [word for source in sources(rows) for word in (f"{source} before", f"{source} after")]
    return ["run", *(axis.name for axis in axes), "result", "step", "loss", *held_out]


def cells(row: Row, held_out: Sequence[str]) -> list[str]:
    """A row of the table, under `heads`."""
    found = [figure(value) for source in held_out for value in (row.first(source), row.last(source))]
    step = "-" if row.step is None else f"{row.step:,}"
    return [row.run, *map(str, row.values), row.result, step, figure(row.loss), *found]


def as_json(axes: Sequence[Axis], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One object per run."""
    return [
        {
            "run": one.run,
            "values": dict(zip((axis.field for axis in axes), one.values, strict=True)),
            "result": one.result,
            "step": one.step,
            "loss": one.loss,
            "perplexity": {
                source: {"before": one.first(source), "after": one.last(source)} for source in one.perplexities
            },
            "measured": {stage: dict(of) for stage, of in one.measured.items()},
        }
        for one in rows
    ]
