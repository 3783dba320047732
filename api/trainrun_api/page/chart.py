"""Line charts as inline SVG: axes with round ticks, one line per series, its name at its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from trainrun_api.page.markup import Child, Markup, el

WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 86, 14, 34
MOST_POINTS = 400
"""A line of more points is drawn as the mean of buckets, with their range behind it."""

SMALLEST_SPAN = 1e-12

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """One line; `colour` is the number of a CSS class s0, s1, ..."""

    name: str
    points: Points
    colour: int = 0
    has_dots: bool = False


@dataclass(frozen=True)
class Axis:
    """What x counts, and how its values are written."""

    name: str
    written: Callable[[float], str]


STEPS = Axis("step", lambda value: f"{value:,.0f}")


@dataclass(frozen=True)
class Mark:
    """A vertical line with a tooltip, at x."""

    x: float
    text: str
    kind: str


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low or 1.0
        return self.first + (value - self.low) / span * (self.last - self.first)


def line_chart(
    series: Sequence[Series],
    marks: Sequence[Mark],
    *,
    label: str,
    written: Callable[[float], str],
    across: Axis = STEPS,
) -> Markup:
    """The chart; `label` is read aloud by screen readers, `written` formats values of the y axis."""
    xs = [x for one in series for x, _ in one.points] + [mark.x for mark in marks]
    ys = [y for one in series for _, y in one.points]
    x_ticks, y_ticks = ticks(min(xs), max(xs), 6), ticks(min(ys), max(ys), 5)
    right = _Scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    up = _Scale(min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys)), HEIGHT - BOTTOM, TOP)
    children: list[Child] = [el("title", label)]
    for tick in y_ticks:
        y = up(tick)
        children.append(el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        children.append(el("text", written(tick), x=LEFT - 7, y=y + 4, class_="tick end"))
    for tick in x_ticks:
        children.append(el("text", across.written(tick), x=right(tick), y=HEIGHT - BOTTOM + 17, class_="tick middle"))
    children.append(el("text", across.name, x=WIDTH - RIGHT, y=HEIGHT - 3, class_="tick end"))
    for mark in marks:
        x = right(mark.x)
        line = el("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_=f"mark {mark.kind}")
        children.append(el("g", el("title", mark.text), line))
    ends = _apart([up(one.points[-1][1]) for one in series])
    for one, end in zip(series, ends, strict=True):
        children.extend(_line(one, right, up, across))
        children.append(el("text", _short(one.name), x=WIDTH - RIGHT + 7, y=end + 4, class_=f"name t{one.colour}"))
    return el("svg", *children, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", class_="chart")


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """About `wanted` round numbers between `low` and `high`; at least two, around them if none lies between."""
    size = max(abs(low), abs(high))
    span = high - low
    if span <= 1e-9 * size or span < SMALLEST_SPAN:  # a flat line, as far as floats can tell
        span = max(size, SMALLEST_SPAN)
    raw = span / wanted
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(magnitude * factor for factor in (1, 2, 2.5, 5, 10) if magnitude * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    if last - first < 1:
        first, last = math.floor(low / step), math.ceil(high / step)
        last = max(last, first + 1)
    return [index * step for index in range(first, last + 1)]


def thinned(points: Points, most: int = MOST_POINTS) -> list[tuple[float, float, float, float]]:
    """(x, mean, lowest, highest) of at most `most` buckets of neighbouring points."""
    bucket = max(1, math.ceil(len(points) / most))
    out = []
    for start in range(0, len(points), bucket):
        part = points[start : start + bucket]
        values = [y for _, y in part]
        out.append((part[-1][0], sum(values) / len(values), min(values), max(values)))
    return out


def _line(series: Series, right: _Scale, up: _Scale, across: Axis) -> list[Markup]:
    points = thinned(series.points)
    out = []
    if len(points) < len(series.points):
        upper = [f"{right(x):.1f},{up(high):.1f}" for x, _, _, high in points]
        lower = [f"{right(x):.1f},{up(low):.1f}" for x, _, low, _ in reversed(points)]
        out.append(el("polygon", points=" ".join([*upper, *lower]), class_=f"band f{series.colour}"))
    path = " ".join(f"{right(x):.1f},{up(mean):.1f}" for x, mean, _, _ in points)
    out.append(el("polyline", points=path, class_=f"line s{series.colour}"))
    if series.has_dots:
        out += [
            el(
                "circle",
                el("title", f"{series.name}, {across.name} {across.written(x)}: {mean:,.4g}"),
                cx=right(x), cy=up(mean), r=2.6, class_=f"f{series.colour}",
            )
            for x, mean, _, _ in points
        ]  # fmt: skip
    return out


def _apart(heights: Sequence[float], room: float = 14.0) -> list[float]:
    """The heights, moved so that no two names overlap and none stands below the axis."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    out = list(heights)
    for before, index in pairwise(order):
        out[index] = max(out[index], out[before] + room)
    lowest = float(HEIGHT - BOTTOM)
    for index in reversed(order):
        out[index] = min(out[index], lowest)
        lowest = out[index] - room
    return out


def _short(name: str, most: int = 13) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
