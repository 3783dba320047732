"""The page: sections in reading order. Everything is inline; nothing is fetched when it is opened."""

from __future__ import annotations

from collections.abc import Sequence

from trainrun_api.page.chart import Mark, Series, line_chart
from trainrun_api.page.document import document, section, table, unbroken
from trainrun_api.page.markup import Child, Markup, el
from trainrun_api.page.words import clock_time, duration, figure, percent

from trainrun_operator.core.goodput import CLASSES
from trainrun_operator.report import story
from trainrun_operator.report.attempts import lanes
from trainrun_operator.report.bars import Part, share_bar, time_line
from trainrun_operator.report.records import Learning, RunRecords
from trainrun_operator.report.recovery import Recovery, recoveries
from trainrun_operator.report.tables import checkpoints, chronicle, configuration, failures, recovery


def page(records: RunRecords) -> str:
    """The whole document."""
    resumed = recoveries(records)
    body = el(
        "main",
        _header(records, resumed),
        _tiles(records),
        [_curves(learning, [one for one in resumed if one.stage == learning.stage]) for learning in records.learning],
        _time_line(records, resumed),
        _ledger(records),
        failures(records, resumed),
        recovery(records, resumed),
        checkpoints(records),
        configuration(records),
        chronicle(records),
    )
    return document(f"{records.name}: {records.status.phase or 'no status'}", body)


def _header(records: RunRecords, resumed: Sequence[Recovery]) -> Markup:
    phase = records.status.phase or "Unknown"
    kind = {"Succeeded": "good", "Failed": "bad", "Stalled": "bad"}.get(phase, "neutral")
    when = f"{clock_time(records.created_at)} to {clock_time(records.ended_at)}"
    return el(
        "header",
        el("p", f"TrainingRun, {when}", class_="eyebrow"),
        el("h1", records.name, " ", el("span", phase, class_=f"badge {kind}")),
        el("p", story.sentence(records, resumed), class_="story"),
    )


def _tiles(records: RunRecords) -> Markup:
    cells = [
        el("div", el("dt", title), el("dd", value, el("small", note)), class_="tile")
        for title, value, note in story.tiles(records)
    ]
    return el("dl", cells, class_="tiles")


def _curves(learning: Learning, resumed: Sequence[Recovery]) -> Markup:
    marks = [
        Mark(
            float(one.parent_step), f"attempt {one.attempt} went on from step {one.parent_step} ({one.fault})", "resume"
        )
        for one in resumed
        if one.parent_step is not None
    ]
    loss, held_out = story.losses(learning), story.perplexities(learning)
    figures: list[Child] = []
    if loss:
        chart = line_chart([Series("loss", loss)], marks, label="Training loss over steps", written=figure)
        note = " Dashed: the run went on from a checkpoint there." if marks else ""
        figures.append(el("figure", el("figcaption", "Training loss over steps.", note), chart))
    if held_out:
        series = [
            Series(name, points, colour + 1, has_dots=True) for colour, (name, points) in enumerate(held_out.items())
        ]
        chart = line_chart(series, [], label="Held-out perplexity per source", written=figure)
        figures.append(el("figure", el("figcaption", "Held-out perplexity per source."), chart))
    if not figures:
        figures.append(el("p", "No step was reported yet.", class_="empty"))
    return section(f"Learning: {learning.stage}" if learning.stage else "Learning", el("div", figures, class_="pair"))


def _time_line(records: RunRecords, resumed: Sequence[Recovery]) -> Markup:
    rows = lanes(records, resumed)
    if not rows:
        return section("Attempts", el("p", "No attempt was started yet.", class_="empty"))
    legend = el(
        "p",
        [el("span", el("i", class_=f"k-{kind}"), name) for kind, name in (
            ("waitingCapacity", "waiting for nodes"), ("starting", "starting"), ("training", "training"),
            ("detecting", "fault to verdict"),
        )],
        el("span", el("i", class_="drop"), "fault"),
        class_="legend",
    )  # fmt: skip
    return section("Attempts", legend, time_line(rows, records.wall_seconds or 0.0))


def _ledger(records: RunRecords) -> Markup:
    seconds = {name: value for name, value in records.status.goodput.seconds_by_class.items() if value > 0}
    if not seconds:
        return section("Where the time went", el("p", "Nothing is booked yet.", class_="empty"))
    ordered = sorted(seconds, key=lambda name: (name != "training", -seconds[name]))
    total = round(sum(seconds.values()), 3)
    parts, here = [], 0.0
    for name in ordered:
        parts.append(Part(here, here + seconds[name], name, f"{name}: {duration(seconds[name])}"))
        here += seconds[name]
    rows: list[Sequence[Child]] = [
        (_key(name), f"{seconds[name]:,.3f}", percent(seconds[name] / total), CLASSES.get(name, "")) for name in ordered
    ]
    rows.append((el("b", "sum"), el("b", f"{total:,.3f}"), el("b", "100.0 %"), _adds_up(records, total)))
    return section(
        "Where the time went",
        share_bar(parts),
        table(("class", "seconds", "share", "what it is"), rows, numbers=(1, 2)),
    )


def _key(name: str) -> Markup:
    return unbroken([el("i", class_=f"k-{name}"), name])


def _adds_up(records: RunRecords, total: float) -> str:
    wall = records.wall_seconds
    if wall is None or records.status.result is None:
        return "booked so far"
    if abs(wall - total) < 0.0015:
        return f"exactly the wall time of the run, {wall:,.3f} seconds"
    return f"the wall time of the run is {wall:,.3f} seconds"
