"""Horizontal bars as inline SVG: the ledger as one bar, the attempts on a time line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainrun_api.page.chart import ticks
from trainrun_api.page.markup import Child, Markup, el
from trainrun_api.page.words import duration

WIDTH = 1160
LANE, BAR = 34, 20
LEFT, RIGHT, TOP, BOTTOM = 92, 150, 22, 26


@dataclass(frozen=True)
class Part:
    """A stretch of a bar."""

    begin: float
    end: float
    kind: str
    text: str


@dataclass(frozen=True)
class Point:
    """A moment on a bar: a fault, or a restart in place."""

    at: float
    kind: str
    text: str


@dataclass(frozen=True)
class Lane:
    """One attempt."""

    name: str
    parts: Sequence[Part]
    points: Sequence[Point]
    ending: str
    is_good: bool


def time_line(lanes: Sequence[Lane], total_seconds: float) -> Markup:
    """Attempts below each other over the run's wall time."""
    height = TOP + LANE * len(lanes) + BOTTOM
    span = total_seconds or 1.0

    def x(seconds: float) -> float:
        return LEFT + min(max(seconds / span, 0.0), 1.0) * (WIDTH - LEFT - RIGHT)

    children: list[Child] = [el("title", "Attempts over time")]
    for tick in ticks(0.0, span, 8):
        if tick <= span:
            children.append(el("line", x1=x(tick), x2=x(tick), y1=TOP, y2=height - BOTTOM, class_="grid"))
            children.append(el("text", duration(tick) if tick else "0", x=x(tick), y=height - 8, class_="tick middle"))
    for index, lane in enumerate(lanes):
        y = TOP + index * LANE
        children.append(el("text", lane.name, x=LEFT - 10, y=y + BAR - 5, class_="lane end"))
        for part in lane.parts:
            width = max(1.0, x(part.end) - x(part.begin))
            bar = el(
                "rect", el("title", part.text), x=x(part.begin), y=y, width=width, height=BAR, class_=f"k-{part.kind}"
            )
            children.append(bar)
        for point in lane.points:
            children.append(_pin(x(point.at), y, point))
        end = max((part.end for part in lane.parts), default=0.0)
        kind = "good" if lane.is_good else "bad"
        children.append(el("text", lane.ending, x=x(end) + 8, y=y + BAR - 5, class_=f"ending {kind}"))
    return el("svg", *children, viewBox=f"0 0 {WIDTH} {height}", role="img", class_="wide")


def share_bar(parts: Sequence[Part]) -> Markup:
    """One bar over the whole width; parts follow each other and add up to the last one's end."""
    total = parts[-1].end or 1.0
    children: list[Child] = [el("title", "Wall time by class")]
    for part in parts:
        left, right = part.begin / total * WIDTH, part.end / total * WIDTH
        children.append(
            el(
                "rect",
                el("title", part.text),
                x=left,
                y=0,
                width=max(right - left, 0.5),
                height=28,
                class_=f"k-{part.kind}",
            )
        )
    return el("svg", *children, viewBox=f"0 0 {WIDTH} 28", role="img", class_="wide", preserveAspectRatio="none")


def _pin(x: float, y: float, point: Point) -> Markup:
    """A drop above the bar, with its line through it."""
    shape = f"M{x:.1f},{y + 1} l-5,-9 h10 z"
    return el(
        "g",
        el("title", point.text),
        el("line", x1=x, x2=x, y1=y - 2, y2=y + BAR + 3, class_=f"pin {point.kind}"),
        el("path", d=shape, class_=f"pin-head {point.kind}"),
    )
