"""The sections that come from evaluate stages: the table against the baseline, and samples beside their references."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainrun_api.page.document import section, table
from trainrun_api.page.markup import Child, Markup, el

from trainrun_trainer.reporting.comparing import Comparison, Measure, change, written

QUESTIONS_SHOWN = 3
"""Of each set."""
CHARACTERS_SHOWN = 600
COLOURS = {"better": "good", "worse": "bad", "same": "same"}


def table_of(of: Comparison) -> Markup:
    """A line per measure, the baseline first."""
    columns = [*of.models, *of.others]
    heads = ["measure", f"baseline: {of.baseline}", *columns]
    rows = [
        (one.title, written(one.values.get(of.baseline)), *(_cell(one, of, column) for column in columns))
        for one in of.measures
    ]
    note = el("p", "Small print: the change against the baseline, green where better and red where worse.")
    return section("Result", note, table(heads, rows, numbers=range(1, len(heads))), class_="result")


def samples(of: Comparison) -> Markup | None:
    """The first questions of each set: prompt, reference, and what each model answered."""
    shown: dict[str, list[Markup]] = {}
    for (name, number, prompt), sample in of.samples.items():
        cards = shown.setdefault(name, [])
        if len(cards) < QUESTIONS_SHOWN:
            cards.append(_card(number, prompt, sample, of))
    if not shown:
        return None
    parts: list[Child] = []
    for name, cards in shown.items():
        of_set = sum(key[0] == name for key in of.samples)
        parts += [el("h3", f"{name}: the first {len(cards)} of {of_set}"), el("div", cards, class_="cards")]
    return section("Samples beside their references", parts)


def _cell(measure: Measure, of: Comparison, column: str) -> Markup:
    verdict = measure.verdict(of.baseline, column)
    moved = "same" if verdict == "same" else change(measure, of.baseline, column)
    return el("span", written(measure.values.get(column)), el("small", moved, class_=COLOURS[verdict or "same"]))


def _card(number: int, prompt: str, sample: Mapping[str, Any], of: Comparison) -> Markup:
    outputs = sample["outputs"]
    columns = [column for column in (of.baseline, *of.models, *of.others) if column in outputs]
    answers = [(f"baseline: {column}" if column == of.baseline else column, outputs[column]) for column in columns]
    texts = [("prompt", prompt), ("reference", sample["reference"]), *answers]
    parts = [el("div", el("dt", name), el("dd", _cut(text), class_=_kind(name))) for name, text in texts]
    return el("article", el("p", f"question {number + 1}", class_="eyebrow"), el("dl", parts))


def _kind(name: str) -> str | None:
    return name if name in ("prompt", "reference") else None


def _cut(text: object) -> Child:
    words = str(text if text is not None else "").strip()
    if not words:
        return el("span", "(nothing)", class_="empty")
    if len(words) <= CHARACTERS_SHOWN:
        return words
    return [
        words[:CHARACTERS_SHOWN],
        el("span", f" … {len(words) - CHARACTERS_SHOWN:,} characters more", class_="empty"),
    ]
