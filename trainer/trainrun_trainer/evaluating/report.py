"""The table of an evaluation: a line per measure, the baseline first, then the model, then what others answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainrun_api.evaluation import OTHER_TOKENS, PERPLEXITY, measures

SAMPLES_SHOWN = 3
CHARACTERS_SHOWN = 300


def markdown(result: Mapping[str, Any]) -> str:
    """The whole page."""
    columns = list(result["columns"])
    lines = ["# Evaluation", "", f"| measure | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for title, values in measures(result):
        cells = [_marked(cell(values.get(column)), title, of) for column, of in result["columns"].items()]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += ["", "Perplexity: lower is better. All other measures: higher is better.", ""]
    lines += [f"- **{warning}**" for warning in result["warnings"]]
    for name, of in result["columns"].items():
        lines.append(f"- {name}: `{of['path']}`")
    lines += _samples(result)
    return "\n".join(lines) + "\n"


def cell(value: float | None) -> str:
    """A number for people; whole ones as they are, and what was not measured as a dash."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def _marked(text: str, title: str, column: Mapping[str, Any]) -> str:
    """So that nobody compares what is no measure of the same."""
    return f"{text} (other tokens)" if title.startswith(PERPLEXITY) and OTHER_TOKENS in column else text


def _samples(result: Mapping[str, Any]) -> Iterator[str]:
    shown: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for sample in result["samples"]:
        if sample["number"] < SAMPLES_SHOWN:
            shown.setdefault((sample["set"], sample["number"]), []).append(sample)
    if shown:
        yield from ("", "## Samples", "")
    for (name, number), samples in shown.items():
        yield from (f"**{name}, question {number}**", "", f"    {_short(samples[0]['prompt'])}", "")
        yield from ("| from | text |", "| --- | --- |", f"| reference | {_short(samples[0]['reference'])} |")
        yield from (f"| {sample['column']} | {_short(sample['output'])} |" for sample in samples)
        yield ""


def _short(text: str) -> str:
    """One line of a text that does not break a table."""
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= CHARACTERS_SHOWN else line[: CHARACTERS_SHOWN - 3] + "..."
