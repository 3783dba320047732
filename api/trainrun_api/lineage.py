"""Which claims a run's history is made of, and which of its metrics lines count.

Each worker group takes a claim whose *parent* is the checkpoint that it started from. The newest claim
and its parents are the run's history; whatever an older claim did beyond the parent of the next one is
not. Pure functions over parsed JSON, standard library only: trainer, local mode and report agree by
calling the same code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Span = tuple[int, int, int | None]
"""(claim, after_step, up_to_step): steps s with after_step < s <= up_to_step; None: no end."""

BEFORE_STEP_ZERO = -1
"""`after_step` of a claim without a parent: step 0 is its own."""


def chain(claims: Iterable[Mapping[str, Any]]) -> list[Span]:
    """The run's history, newest claim first.

    Raises ValueError if a parent is missing or is not older than its child.
    """
    by_number = {int(c["k"]): c for c in claims}
    spans: list[Span] = []
    number = max(by_number, default=None)
    up_to: int | None = None
    while number is not None:
        if number not in by_number:
            raise ValueError(f"claim {number} is named as a parent but does not exist")
        parent = by_number[number].get("parent")
        after = BEFORE_STEP_ZERO if parent is None else int(parent["step"])
        spans.append((number, after, up_to))
        if parent is None:
            return spans
        if int(parent["claim"]) >= number:
            raise ValueError(f"claim {number} names claim {parent['claim']}, which is not older, as its parent")
        number = int(parent["claim"])
        # a claim that fell back behind its parent's own start leaves the parent with no step of its own
        up_to = after
    return spans


def holds(span: Span, step: int) -> bool:
    """Does this stretch of the history contain the step?"""
    _, after, up_to = span
    return after < step and (up_to is None or step <= up_to)


def read_lines(text: str) -> list[dict[str, Any]]:
    """Parse JSON lines; a last line that was not written whole is left out."""
    complete = text[: text.rfind("\n") + 1]
    return [json.loads(line) for line in complete.splitlines() if line.strip()]


def merge_metrics(
    claims: Iterable[Mapping[str, Any]], lines_by_claim: Mapping[int, Sequence[Mapping[str, Any]]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(exactly one line per step, replays that diverged).

    A line without a loss is an evaluation after its step: it is merged into that step's line (a line of
    its own at step 0). A replay diverged when a step that counts ran in another claim with another loss:
    {step, claim, loss_hex, kept_claim, kept_loss_hex}.
    """
    kept: dict[int, dict[str, Any]] = {}
    spans = chain(claims)
    for span in reversed(spans):
        for line in lines_by_claim.get(span[0], ()):
            step = int(line["step"])
            if line.get("loss_hex") is not None:
                if holds(span, step):
                    kept[step] = {**line, **{k: v for k, v in kept.get(step, {}).items() if k == "eval"}}
            elif holds(span, step) or step == span[1]:
                has_loss = kept.get(step, {}).get("loss_hex") is not None
                kept[step] = {**kept[step], "eval": line["eval"]} if has_loss else dict(line)
    diverged = [
        {
            "step": int(line["step"]), "claim": claim, "loss_hex": line["loss_hex"],
            "kept_claim": kept[int(line["step"])]["claim"], "kept_loss_hex": kept[int(line["step"])]["loss_hex"],
        }
        for claim, lines in sorted(lines_by_claim.items())
        for line in lines
        if line.get("loss_hex") is not None and _differs(line, kept.get(int(line["step"])))
    ]  # fmt: skip
    return [kept[step] for step in sorted(kept)], diverged


def _differs(line: Mapping[str, Any], kept: Mapping[str, Any] | None) -> bool:
    return kept is not None and kept.get("loss_hex") is not None and kept["loss_hex"] != line["loss_hex"]
