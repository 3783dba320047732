"""sweep.html: the table, the held-out perplexity of all runs over their steps, and what their evaluations found."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainrun_api.page import chart
from trainrun_api.page.chart import Series, line_chart
from trainrun_api.page.document import document, section, table, unbroken
from trainrun_api.page.markup import Child, Markup, el
from trainrun_api.page.words import figure

from trainrun_operator.sweep import evaluations
from trainrun_operator.sweep.results import Row, cells, heads, sources
from trainrun_operator.sweep.variants import Axis

COLOURS = 5
"""Of style.css; more lines than that use them again, their names stand at their ends."""


def sweep_page(name: str, axes: Sequence[Axis], rows: Sequence[Row]) -> str:
    """The whole document."""
    held_out = sources(rows)
    fields = ", ".join(axis.field for axis in axes)
    done = sum(row.result == "Succeeded" for row in rows)
    numbers = range(len(axes) + 2, len(axes) + 4 + 2 * len(held_out))
    body = el(
        "main",
        el(
            "header",
            el("p", "Sweep", class_="eyebrow"),
            el("h1", name),
            el("p", f"{len(rows)} runs over {fields}; {done} of them succeeded.", class_="story"),
        ),
        section("Results", table(heads(axes, rows), [_whole(cells(row, held_out)) for row in rows], numbers)),
        section("Held-out perplexity", el("div", [_figure(source, axes, rows) for source in held_out], class_="pair"))
        if held_out
        else None,
        _measured(axes, rows),
    )
    return document(f"sweep of {name}", body)


def _measured(axes: Sequence[Axis], rows: Sequence[Row]) -> Markup | None:
    """A table of what evaluate stages measured, and a drawing of each measure over the runs, a line per stage."""
    found = evaluations.lines(rows)
    if not found:
        return None
    names = evaluations.heads(rows)
    shown = table(names, [_whole(evaluations.cells(rows, line)) for line in found], range(2, len(names)))
    titles = dict.fromkeys(title for title, _ in found)
    figures = [_over_runs(title, [stage for one, stage in found if one == title], axes, rows) for title in titles]
    return section("What the stages measured", shown, el("div", figures, class_="pair"))


def _whole(cells: Sequence[str]) -> list[Child]:
    """Beside many columns of numbers, which do not break, words would be broken letter by letter."""
    return [unbroken(cell) for cell in cells]


def _over_runs(title: str, stages: Sequence[str], axes: Sequence[Axis], rows: Sequence[Row]) -> Markup | None:
    """Over the values that were swept if they are numbers, else over the runs as they are numbered."""
    is_number = len(axes) == 1 and all(type(value) in (int, float) for value in axes[0].values)
    across = chart.Axis(axes[0].name if is_number else "run", lambda value: f"{value:g}")
    lines: dict[str, list[tuple[float, float]]] = {}
    for number, row in enumerate(rows):
        for stage in stages:
            value = row.measured.get(stage, {}).get(title)
            if value is not None and math.isfinite(value):
                lines.setdefault(stage, []).append((float(row.values[0]) if is_number else float(number), value))
    if not lines:
        return None
    series = [
        Series(stage, sorted(points), number % COLOURS, has_dots=True)
        for number, (stage, points) in enumerate(lines.items())
    ]
    caption = f"{title}, over {across.name}."
    drawn: Child = line_chart(series, [], label=caption, written=figure, across=across)
    return el("figure", el("figcaption", caption), drawn)


def _figure(source: str, axes: Sequence[Axis], rows: Sequence[Row]) -> Markup:
    series = [
        Series(_name(axes, row), row.perplexities[source], number % COLOURS, has_dots=True)
        for number, row in enumerate(rows)
        if row.perplexities.get(source)
    ]
    drawn: Child = line_chart(series, [], label=f"Held-out perplexity of {source} over steps", written=figure)
    return el("figure", el("figcaption", f"{source}, over steps."), drawn)


def _name(axes: Sequence[Axis], row: Row) -> str:
    if len(axes) == 1:
        return f"{axes[0].name} {row.values[0]}"
    return ", ".join(map(str, row.values))
