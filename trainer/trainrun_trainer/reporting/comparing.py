"""What became better and what worse: results of evaluate stages beside their baseline. No markup here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainrun_api.contract import CheckpointLayout
from trainrun_api.evaluation import BASELINE, MODEL, OTHER_TOKENS, PERPLEXITY, measures
from trainrun_api.page.words import UNKNOWN, plural

from trainrun_trainer.reporting.records import Stage

Verdict = Literal["better", "worse", "same"]
MOVED: tuple[Verdict, ...] = ("better", "worse")
MOST_TOLD = 4
"""Measures named in one sentence; the table has all."""
SAME_RATIO = 0.01
"""A perplexity that moved by less is called the same."""
SAME_SHARE = 0.005
"""The same for measures from 0 to 1."""


@dataclass(frozen=True)
class Measure:
    """One line of a table: a value per column."""

    title: str
    values: Mapping[str, float]
    other_tokens: Set[str] = frozenset()
    """Columns whose tokenizer is not the baseline's."""

    @property
    def is_perplexity(self) -> bool:
        """Lower is better; otherwise higher is."""
        return self.title.startswith(PERPLEXITY)

    def verdict(self, baseline: str, column: str) -> Verdict | None:
        """The column against the baseline; None where one of them was not measured, or over other tokens."""
        if self.is_perplexity and column in self.other_tokens:
            return None
        before, after = self.values.get(baseline), self.values.get(column)
        if before is None or after is None or not (math.isfinite(before) and math.isfinite(after)):
            return None
        if abs(after - before) < (SAME_RATIO * before if self.is_perplexity else SAME_SHARE):
            return "same"
        return "better" if (after < before) == self.is_perplexity else "worse"


@dataclass
class Comparison:
    """One baseline and the models that were measured beside it, perhaps by several stages."""

    baseline: str
    models: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    """Systems whose answers came from files."""
    other_tokens: set[str] = field(default_factory=set)
    """Models whose tokenizer is not the baseline's."""
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    """Measure -> column -> value."""
    samples: dict[tuple[str, int, str], dict[str, Any]] = field(default_factory=dict)
    """(set, number, prompt) -> {reference, outputs by column}."""
    warnings: list[str] = field(default_factory=list)

    @property
    def measures(self) -> list[Measure]:
        """The table's lines."""
        return [Measure(title, values, self.other_tokens) for title, values in self.values.items()]

    def count(self, model: str, verdict: Verdict) -> list[Measure]:
        """The measures on which the model is better (worse, the same)."""
        return [one for one in self.measures if one.verdict(self.baseline, model) == verdict]


def comparisons(stages: Sequence[Stage], root: Path) -> list[Comparison]:
    """Evaluate stages with the same baseline share a table."""
    found: dict[str, Comparison] = {}
    for stage in stages:
        columns = stage.evaluation.get("columns")
        if not isinstance(columns, Mapping) or BASELINE not in columns or MODEL not in columns:
            continue
        key = repr(sorted(columns[BASELINE].get("files", {}).items()))
        of = found.setdefault(key, Comparison(_made_by(columns[BASELINE], root) or BASELINE))
        _add(of, stage, columns, root)
    return list(found.values())


def _add(of: Comparison, stage: Stage, columns: Mapping[str, Any], root: Path) -> None:
    """One more evaluation; a measure that another stage took otherwise gets a line of its own."""
    names = {BASELINE: of.baseline, MODEL: _made_by(columns[MODEL], root) or stage.name}
    names |= {other: other for other in columns if other not in names}
    if names[MODEL] == of.baseline:
        names[MODEL] = f"{names[MODEL]} ({stage.name})"
    for title, values in measures(stage.evaluation):
        named = {names[column]: float(value) for column, value in values.items() if column in names}
        there = of.values.setdefault(title, {})
        if any(there.get(column, value) != value for column, value in named.items()):
            there = of.values.setdefault(f"{title} ({stage.name})", {})
        there.update(named)
    of.models += [names[MODEL]] if names[MODEL] not in of.models else []
    of.other_tokens |= {names[MODEL]} if OTHER_TOKENS in columns[MODEL] else set()
    of.others += [other for other in columns if other not in (BASELINE, MODEL) and other not in of.others]
    of.warnings += [_renamed(str(warning), names) for warning in stage.evaluation.get("warnings", [])]
    for sample in stage.evaluation.get("samples", []):
        key = (str(sample.get("set")), int(sample.get("number", 0)), str(sample.get("prompt")))
        shown = of.samples.setdefault(key, {"reference": sample.get("reference"), "outputs": {}})
        shown["outputs"][names.get(sample.get("column"), "?")] = sample.get("output")


def _made_by(column: Mapping[str, Any], root: Path) -> str:
    """The stage whose folder it is, or the last name of the path that is worth reading."""
    path = Path(str(column.get("path") or ""))
    if path.is_relative_to(root / CheckpointLayout.STAGES):
        return path.relative_to(root / CheckpointLayout.STAGES).parts[0]
    names = [part for part in path.parts if part not in ("/", "export", "model", "checkpoints")]
    return names[-1] if names else ""


def _renamed(warning: str, names: Mapping[str, str]) -> str:
    """The evaluation's own words for the columns, as this page calls them."""
    words = warning.replace(f"of {BASELINE},", f"of {names[BASELINE]},")
    return f"{names[MODEL]}{words[len(MODEL) :]}" if words.startswith(f"{MODEL} ") else words


def sentences(of: Comparison) -> Iterator[str]:
    """For each model, what became better, what worse and what stayed, in plain words."""
    for model in of.models:
        told = [_told(of, model, verdict) for verdict in MOVED if of.count(model, verdict)]
        same = [_prose(one) for one in of.count(model, "same")]
        if same:
            told.append(f"The same within {SAME_RATIO:.0%}: {_listed(same)}.")
        if model in of.other_tokens:
            told.append("Its perplexities are over other tokens than the baseline's, and are not compared.")
        yield f"{model}, beside its baseline, {of.baseline}. {' '.join(told) or 'No measure has both values.'}"


def _told(of: Comparison, model: str, verdict: Verdict) -> str:
    found = of.count(model, verdict)
    moved = [_moved(one, of.baseline, model) for one in found]
    return f"{verdict.capitalize()} on {plural(len(found), 'measure')}: {_listed(moved, '; ')}."


def _listed(parts: Sequence[str], between: str = ", ") -> str:
    rest = len(parts) - MOST_TOLD
    return between.join([*parts[:MOST_TOLD], *([f"and {rest} more in the table"] if rest > 0 else [])])


def written(value: float | None) -> str:
    """A measure's value, for people."""
    if value is None:
        return UNKNOWN
    if not math.isfinite(value):
        return "no number"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def change(measure: Measure, baseline: str, column: str) -> str:
    """`-87 %`, `3.2 times` or `+0.167`; nothing where it was not measured."""
    before, after = measure.values.get(baseline), measure.values.get(column)
    if measure.verdict(baseline, column) is None or before is None or after is None:
        return ""
    if not measure.is_perplexity:
        return f"{after - before:+.3f}"
    ratio = after / before  # the smallest perplexity is 1
    return f"{ratio:,.1f} times" if ratio >= 2 else f"{100 * (ratio - 1):+.0f} %"


def _moved(measure: Measure, baseline: str, column: str) -> str:
    before, after = measure.values[baseline], measure.values[column]
    verb = "fell" if after < before else "rose"
    return f"{_prose(measure)} {verb} from {written(before)} to {written(after)} ({change(measure, baseline, column)})"


def _prose(measure: Measure) -> str:
    return measure.title.replace(", ", " on ", 1)
