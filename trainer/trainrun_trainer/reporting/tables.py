"""The sections that are tables: cost, lineage, and the configurations folded away."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from trainrun_api.page.document import section, table, unbroken
from trainrun_api.page.markup import Child, Markup, el
from trainrun_api.page.words import UNKNOWN, count, duration

from trainrun_trainer.reporting.records import Stage

HASH_SHOWN = 12
"""Characters of a hash in the table; whole ones are in the details."""


def cost(stages: Sequence[Stage]) -> Markup:
    """Steps, tokens and seconds of each stage; speed and trained parameters where something was trained."""
    rows: list[Sequence[Child]] = [
        (unbroken(stage.name), stage.kind, number(stage.num_steps), count(stage.tokens), duration(stage.seconds),
         _speed(stage), _parameters(stage))
        for stage in stages
    ]  # fmt: skip
    steps, tokens = sum(stage.num_steps or 0 for stage in stages), sum(stage.tokens or 0 for stage in stages)
    seconds = sum(stage.seconds or 0.0 for stage in stages)
    rows.append(
        (el("b", "sum"), "", el("b", number(steps)), el("b", count(tokens)), el("b", duration(seconds)), "", "")
    )
    heads = ("stage", "kind", "steps", "tokens", "time", "samples per second", "trained parameters")
    note = "Time: of all attempts of a stage. Samples per second: rows of the median step, over its time."
    return section("What it cost", el("p", note), table(heads, rows, numbers=range(2, len(heads))))


def lineage(stages: Sequence[Stage]) -> Markup:
    """Which stage was made from which, by hashes."""
    rows = [
        (unbroken(stage.name), stage.kind, _parents(stage), _code(stage.record.get("input")),
         _code(_digest(stage)), _code(stage.record.get("result")))
        for stage in stages
    ]  # fmt: skip
    heads = ("stage", "kind", "made from", "inputs' hash", "state or file hash", "folder")
    note = "Inputs' hash: of configuration, earlier results and data; a stage with the same one is not run again."
    return section("Where it comes from", el("p", note), table(heads, rows))


def configurations(stages: Sequence[Stage]) -> Markup:
    """Everything that is needed to do it again."""
    shown = [
        el("details", el("summary", f"{stage.name}: configuration, files and lineage"), el("pre", _told(stage)))
        for stage in stages
        if stage.record
    ]
    return section("Configuration and files", shown, class_="folded")


def _speed(stage: Stage) -> str:
    speed = stage.rows_per_second
    return UNKNOWN if speed is None else f"{speed:,.1f}"


def _parameters(stage: Stage) -> str:
    if stage.kind != "train" or stage.trained_parameters is None:
        return UNKNOWN
    whole = stage.all_parameters
    if whole is None or whole == stage.trained_parameters:
        return f"{stage.trained_parameters:,}"
    return f"{stage.trained_parameters:,} of {whole:,} ({100 * stage.trained_parameters / whole:.2g} %)"


def _parents(stage: Stage) -> Child:
    references = stage.record.get("references") or {}
    parts = list(_outside(stage))
    parts += [el("div", unbroken(str(name).removeprefix("stage:")), " ", _code(hashed))
              for name, hashed in references.items()]  # fmt: skip
    return parts or UNKNOWN


def _outside(stage: Stage) -> Iterator[Markup]:
    """A model from outside the run, as its own lineage says."""
    parent = stage.lineage.get("parent")
    if parent and not stage.record.get("references"):
        yield el("div", "a model of step ", number(parent.get("step")), " ", _code(parent.get("state_digest")))


def _digest(stage: Stage) -> object:
    """What stands for the result: the trained state, or the largest thing that the stage wrote."""
    outputs = stage.record.get("outputs") or {}
    named = sorted(outputs, key=lambda name: (not name.endswith(".safetensors"), name))
    return stage.lineage.get("state_digest") or (outputs[named[0]] if named else None)


def _code(value: object) -> Child:
    if not value:
        return UNKNOWN
    text = str(value)
    return unbroken(el("code", text if "/" in text else text[:HASH_SHOWN], title=text))


def _told(stage: Stage) -> str:
    facts = {key: stage.record.get(key) for key in ("config", "references", "outputs", "data", "outcome")}
    facts["lineage"] = {key: value for key, value in stage.lineage.items() if key != "config"} or None
    return json.dumps(
        {key: value for key, value in facts.items() if value}, indent=1, sort_keys=True, ensure_ascii=False
    )


def number(value: int | None) -> str:
    """Thousands grouped, or a dash."""
    return UNKNOWN if value is None else f"{value:,}"
