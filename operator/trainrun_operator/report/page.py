"""The page: sections in reading order. Everything is inline; nothing is fetched when it is opened."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from trainrun_operator.core.goodput import CLASSES
from trainrun_operator.report import story
from trainrun_operator.report.attempts import lanes
from trainrun_operator.report.bars import Part, share_bar, time_line
from trainrun_operator.report.chart import Mark, Series, line_chart
from trainrun_operator.report.markup import Child, Markup, el, join
from trainrun_operator.report.records import RunRecords
from trainrun_operator.report.recovery import PHASES, Recovery, recoveries
from trainrun_operator.report.words import (
    UNKNOWN,
    clock_time,
    count,
    duration,
    figure,
    of_day,
    parse_time,
    percent,
    size,
)

STYLE = Path(__file__).with_name("style.css")

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The browser itself refuses to fetch anything or to run a script, whatever a log line holds."""


def page(records: RunRecords) -> str:
    """The whole document."""
    resumed = recoveries(records)
    body = el(
        "main",
        _header(records, resumed),
        _tiles(records),
        _curves(records, resumed),
        _time_line(records, resumed),
        _ledger(records),
        _failures(records, resumed),
        _recovery(resumed),
        _checkpoints(records),
        _configuration(records),
        _chronicle(records),
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"/>'),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{records.name}: {records.status.phase or 'no status'}"),
        el("style", Markup(STYLE.read_text(encoding="utf-8"))),
    )
    return f"<!doctype html>\n{el('html', head, el('body', body), lang='en')}\n"


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


def _curves(records: RunRecords, resumed: Sequence[Recovery]) -> Markup:
    marks = [
        Mark(
            float(one.parent_step), f"attempt {one.attempt} went on from step {one.parent_step} ({one.fault})", "resume"
        )
        for one in resumed
        if one.parent_step is not None
    ]
    loss, held_out = story.losses(records), story.perplexities(records)
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
    return _section("Learning", el("div", figures, class_="pair"))


def _time_line(records: RunRecords, resumed: Sequence[Recovery]) -> Markup:
    rows = lanes(records, resumed)
    if not rows:
        return _section("Attempts", el("p", "No attempt was started yet.", class_="empty"))
    legend = el(
        "p",
        [el("span", el("i", class_=f"k-{kind}"), name) for kind, name in (
            ("waitingCapacity", "waiting for nodes"), ("starting", "starting"), ("training", "training"),
            ("detecting", "fault to verdict"),
        )],
        el("span", el("i", class_="drop"), "fault"),
        class_="legend",
    )  # fmt: skip
    return _section("Attempts", legend, time_line(rows, records.wall_seconds or 0.0))


def _ledger(records: RunRecords) -> Markup:
    seconds = {name: value for name, value in records.status.goodput.seconds_by_class.items() if value > 0}
    if not seconds:
        return _section("Where the time went", el("p", "Nothing is booked yet.", class_="empty"))
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
    return _section(
        "Where the time went",
        share_bar(parts),
        _table(("class", "seconds", "share", "what it is"), rows, numbers=(1, 2)),
    )


def _key(name: str) -> Markup:
    return el("span", el("i", class_=f"k-{name}"), name, class_="key")


def _adds_up(records: RunRecords, total: float) -> str:
    wall = records.wall_seconds
    if wall is None or records.status.result is None:
        return "booked so far"
    if abs(wall - total) < 0.0015:
        return f"exactly the wall time of the run, {wall:,.3f} seconds"
    return f"the wall time of the run is {wall:,.3f} seconds"


def _failures(records: RunRecords, resumed: Sequence[Recovery]) -> Markup:
    rows = [
        (
            of_day(one.at),
            one.attempt,
            count(one.step),
            el("b", one.cause),
            one.evidence,
            el("code", one.rule),
            one.action,
        )
        for one in story.failures(records, resumed)
    ]
    if not rows:
        return _section("Failures", el("p", "None.", class_="empty"))
    heads = ("time", "attempt", "step", "cause", "evidence", "rule", "what was done")
    return _section("Failures", _table(heads, rows, numbers=(1, 2)))


def _recovery(resumed: Sequence[Recovery]) -> Markup | None:
    if not resumed:
        return None
    rows = [
        (one.fault, one.cause, *(f"{one.seconds[phase]:.2f}" if phase in one.seconds else UNKNOWN for phase in PHASES),
         el("b", f"{one.total_seconds:.2f}"), count(one.parent_step), count(one.repeated_steps))
        for one in resumed
    ]  # fmt: skip
    heads = ("fault", "seen as", *PHASES, "total", "from step", "steps again")
    note = "Seconds from the fault to the next optimizer step. A restart in place needs no verdict."
    return _section("Recovery", el("p", note), _table(heads, rows, numbers=range(2, len(heads))))


def _checkpoints(records: RunRecords) -> Markup:
    rows = [
        (count(one.step), one.claim, one.manifest.get("attempt"), of_day(parse_time(one.manifest.get("created_at"))),
         size(one.size_bytes), el("code", one.manifest.get("state_digest")), _exported(records, one.step))
        for one in records.checkpoints
    ]  # fmt: skip
    if not rows:
        return _section("Checkpoints", el("p", "None is committed.", class_="empty"))
    heads = ("step", "claim", "attempt", "committed", "size", "state digest", "")
    return _section("Checkpoints", _table(heads, rows, numbers=(0, 1, 2)))


def _exported(records: RunRecords, step: int) -> str:
    return "exported" if records.export and records.export.get("step") == step else ""


def _configuration(records: RunRecords) -> Markup:
    newest = records.checkpoints[-1].manifest if records.checkpoints else {}
    facts = [
        ("uid", records.manifest.get("metadata", {}).get("uid")),
        ("config hash", newest.get("config_hash")),
        ("data hash", newest.get("data_hash") or records.data.get("data_hash")),
        ("state digest of the export", records.export.get("state_digest")),
        *((f"numerics: {name}", value) for name, value in (newest.get("numerics") or {}).items()),
    ]
    rows = [(name, el("code", _inline(value))) for name, value in facts if value is not None]
    sources = [
        (name, *_of_split(source, "train"), *_of_split(source, "held_out"), el("code", source.get("content_xxh3")))
        for name, source in (records.data.get("sources") or {}).items()
    ]
    heads = ("source", "documents", "rows", "tokens", "held-out documents", "rows", "tokens", "content hash")
    config = json.dumps(records.config, indent=2, sort_keys=True)
    return _section(
        "Configuration and data",
        _table(("what", "value"), rows) if rows else None,
        _table(heads, sources, numbers=range(1, 7)) if sources else None,
        el("details", el("summary", "Resolved configuration"), el("pre", config)),
    )


def _of_split(source: dict[str, dict[str, int]], split: str) -> tuple[str, str, str]:
    counts = source.get(split) or {}
    return count(counts.get("documents")), count(counts.get("rows")), count(counts.get("tokens"))


def _chronicle(records: RunRecords) -> Markup:
    rows = [
        (of_day(parse_time(event.get("time"))), event.get("attempt"), event.get("type"), el("code", event.get("rule")),
         event.get("reason"), event.get("message"))
        for event in story.chronicle(records)
    ]  # fmt: skip
    heads = ("time", "attempt", "kind", "rule", "reason", "message")
    summary = el("summary", f"{len(rows)} decisions, actions and faults")
    return _section("Chronicle", el("details", summary, _table(heads, rows, numbers=(1,))), class_="chronicle")


def _section(title: str, *children: Child, class_: str | None = None) -> Markup:
    return el("section", el("h2", title), children, class_=class_)


def _table(heads: Sequence[str], rows: Iterable[Sequence[Child]], numbers: Iterable[int] = ()) -> Markup:
    right = set(numbers)

    def cells(name: str, row: Sequence[Child]) -> Markup:
        return join(el(name, cell, class_="n" if index in right else None) for index, cell in enumerate(row))

    head = el("thead", el("tr", cells("th", heads)))
    return el("div", el("table", head, el("tbody", [el("tr", cells("td", row)) for row in rows])), class_="scroll")


def _inline(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
