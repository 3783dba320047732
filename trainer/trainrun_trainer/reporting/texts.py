"""The section on text: what each source gave, what filters removed, how much of what is held out is in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainrun_api.page.document import section, table, unbroken
from trainrun_api.page.markup import Child, Markup, el
from trainrun_api.page.words import UNKNOWN, count, percent

from trainrun_trainer.reporting.records import Stage
from trainrun_trainer.reporting.tables import number

HEADS = (
    "source", "documents", "removed", "trained on", "tokens", "held out", "held out, found in training text", "stages",
)  # fmt: skip


def texts(stages: Sequence[Stage]) -> Markup | None:
    """A line per source; stages that read the same one share it."""
    readers: dict[tuple[Child, ...], list[str]] = {}
    for stage in stages:
        for line in _lines(stage.data):
            readers.setdefault(line, []).append(stage.name)
    if not readers:
        return None
    rows = [(*line, ", ".join(names)) for line, names in readers.items()]
    words = {stage.data["config"].get("contamination_words") for stage in stages if stage.data.get("config")}
    runs = f" a run of {' or '.join(map(str, sorted(filter(None, words))))} words" if any(words) else " a run of words"
    note = (
        "Trained on and held out: documents, split by their hashes before packing; weights of the mix are in the "
        f"configurations. Found in training text: held-out documents that share{runs} with it."
    )
    return section("What it read", el("p", note), table(HEADS, rows, numbers=range(1, len(HEADS) - 1)))


def _lines(data: Mapping[str, Any]) -> list[tuple[Child, ...]]:
    overlap = data.get("contamination") or {}
    return [_line(name, source, overlap.get(name)) for name, source in (data.get("sources") or {}).items()]


def _line(name: str, source: Mapping[str, Any], overlap: Mapping[str, int] | None) -> tuple[Child, ...]:
    read, train, held_out = source.get("read"), source.get("train") or {}, source.get("held_out") or {}
    shared = UNKNOWN
    if overlap and overlap.get("documents"):
        shared = f"{overlap['overlapping']:,} ({percent(overlap['overlapping'] / overlap['documents'])})"
    return (
        unbroken(name), number(read), _removed(source.get("removed") or {}, read), number(train.get("documents")),
        count(train.get("tokens")), number(held_out.get("documents")), shared,
    )  # fmt: skip


def _removed(removed: Mapping[str, int], read: int | None) -> str:
    """`near copy 3.1 %, language 0.2 %`, of the documents that were read."""
    told = [f"{reason.replace('_', ' ')} {percent(times / read)}" for reason, times in removed.items() if read]
    return ", ".join(told) or "nothing"
