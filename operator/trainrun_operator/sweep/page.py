"""sweep.html: the table, and for each held-out source the perplexity of all runs over their steps."""

from __future__ import annotations

from collections.abc import Sequence

from trainrun_api.page.chart import Series, line_chart
from trainrun_api.page.document import document, section, table
from trainrun_api.page.markup import Child, Markup, el
from trainrun_api.page.words import figure

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
        section("Results", table(heads(axes, rows), [cells(row, held_out) for row in rows], numbers)),
        section("Held-out perplexity", el("div", [_figure(source, axes, rows) for source in held_out], class_="pair"))
        if held_out
        else None,
    )
    return document(f"sweep of {name}", body)


def _figure(source: str, axes: Sequence[Axis], rows: Sequence[Row]) -> Markup:
    series = [
        Series(_name(axes, row), row.perplexities[source], number % COLOURS, has_dots=True)
        for number, row in enumerate(rows)
        if row.perplexities.get(source)
    ]
    chart: Child = line_chart(series, [], label=f"Held-out perplexity of {source} over steps", written=figure)
    return el("figure", el("figcaption", f"{source}, over steps."), chart)


def _name(axes: Sequence[Axis], row: Row) -> str:
    if len(axes) == 1:
        return f"{axes[0].name} {row.values[0]}"
    return ", ".join(map(str, row.values))
