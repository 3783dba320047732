"""The sections with drawings: models over a number (kept checkpoints, merges over t), and training over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainrun_api.evaluation import BASELINE
from trainrun_api.page.chart import STEPS, Axis, Series, line_chart
from trainrun_api.page.document import section, table
from trainrun_api.page.markup import Child, Markup, el
from trainrun_api.page.words import UNKNOWN, count, figure

from trainrun_trainer.reporting.comparing import written
from trainrun_trainer.reporting.records import Stage, finite

COLOURS = 5
"""Of the style sheet, and the most lines in one drawing."""
AXES: Mapping[str, Axis] = {"t": Axis("t", lambda value: f"{value:g}"), "tokens": Axis("tokens", count), "step": STEPS}
"""What a curve's lines may be over, the first that they have."""


def models(stages: Sequence[Stage]) -> Markup | None:
    """Perplexity of each curve's models, drawn and as numbers."""
    parts = [part for stage in stages if stage.curve for part in _curve(stage)]
    return section("Model by model", parts) if parts else None


def learning(stages: Sequence[Stage]) -> Markup | None:
    """Training loss of all train stages, and their held-out perplexity, source by source."""
    figures = [_figure("Training loss", group) for group in _groups([(stage.name, stage.losses) for stage in stages])]
    sources = dict.fromkeys(source for stage in stages for source in stage.held_out)
    for source in sources:
        lines = [(stage.name, stage.held_out.get(source, [])) for stage in stages]
        figures += drawn(f"Perplexity on held-out {source}", lines)
    return section("While training", el("div", figures, class_="pair")) if figures else None


def _curve(stage: Stage) -> list[Markup]:
    lines: list[Mapping[str, Any]] = list(stage.curve.get("lines", []))
    places = [name for name in AXES if any(line.get(name) is not None for line in lines)]
    titles = [key for key in dict.fromkeys(key for line in lines for key in line) if key not in ("name", *AXES)]
    figures = [
        _figure(title.capitalize(), [(title.rpartition(", ")[2], points)], has_dots=True, across=AXES[places[0]])
        for title in titles
        if places and (points := sorted(_points(lines, places[0], title)))
    ]
    rows = [
        (line.get("name"), *_places(line, places), *(written(line.get(title)) for title in titles)) for line in lines
    ]
    heads = ["model", *places, *titles]
    shown = table(heads, rows, numbers=range(1, len(heads)))
    return [el("h3", stage.name), el("div", figures, class_="pair"), shown]


def drawn(title: str, lines: Sequence[tuple[str, Sequence[tuple[float, float]]]], across: Axis = STEPS) -> list[Markup]:
    """As many drawings as it takes to tell the lines apart; each point has a dot."""
    return [_figure(title, group, has_dots=True, across=across) for group in _groups(lines)]


def _places(line: Mapping[str, Any], places: Sequence[str]) -> list[str]:
    return [AXES[name].written(line[name]) if line.get(name) is not None else UNKNOWN for name in places]


def _points(lines: Sequence[Mapping[str, Any]], over: str, title: str) -> list[tuple[float, float]]:
    """The baseline stands at 0: it is the model before anything was mixed in or trained."""
    return finite((0 if line.get("name") == BASELINE else line.get(over), line.get(title)) for line in lines)


def _groups(lines: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> list[Sequence[tuple[str, Any]]]:
    """As many lines as one drawing can tell apart."""
    drawn = [line for line in lines if line[1]]
    return [drawn[start : start + COLOURS] for start in range(0, len(drawn), COLOURS)]


def _figure(title: str, lines: Sequence[tuple[str, Any]], *, has_dots: bool = False, across: Axis = STEPS) -> Markup:
    series = [Series(name, points, colour, has_dots) for colour, (name, points) in enumerate(lines)]
    caption = f"{title}, over {across.name if across.name != 'step' else 'steps'}."
    chart: Child = line_chart(series, [], label=caption, written=figure, across=across)
    return el("figure", el("figcaption", caption), chart)
