"""The sections that are tables: failures, recovery, checkpoints, configuration, chronicle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from trainrun_api.page.document import section, table, unbroken
from trainrun_api.page.markup import Markup, el
from trainrun_api.page.words import UNKNOWN, count, of_day, parse_time, plural, size

from trainrun_operator.report import story
from trainrun_operator.report.records import Record, RunRecords
from trainrun_operator.report.recovery import PHASES, Recovery


def failures(records: RunRecords, resumed: Sequence[Recovery]) -> Markup:
    """What interrupted the training: evidence, rule and action."""
    rows = [
        (unbroken(of_day(one.at)), one.attempt, count(one.step), unbroken(el("b", one.cause)), one.evidence,
         el("code", one.rule), one.action)
        for one in story.failures(records, resumed)
    ]  # fmt: skip
    if not rows:
        return section("Failures", el("p", "None."))
    heads = ("time", "attempt", "step", "cause", "evidence", "rule", "what was done")
    return section("Failures", table(heads, rows, numbers=(1, 2)))


def recovery(records: RunRecords, resumed: Sequence[Recovery]) -> Markup | None:
    """The way back to the next step, phase by phase."""
    if not resumed:
        return None
    rows = [
        (one.fault, one.cause, *(f"{one.seconds[phase]:.2f}" if phase in one.seconds else UNKNOWN for phase in PHASES),
         el("b", f"{one.total_seconds:.2f}"), count(one.parent_step), count(one.repeated_steps))
        for one in resumed
    ]  # fmt: skip
    heads = ("fault", "seen as", *PHASES, "total", "from step", "steps again")
    note = "Seconds from the fault to the next optimizer step; a restart in place needs no verdict."
    text = el("p", f"{note} {story.proof(records)}")
    return section("Recovery", text, table(heads, rows, numbers=range(2, len(heads))))


def checkpoints(records: RunRecords) -> Markup:
    """What is committed and still there."""
    rows = [
        (count(one.step), one.claim, one.manifest.get("attempt"), of_day(parse_time(one.manifest.get("created_at"))),
         size(one.size_bytes), el("code", one.manifest.get("state_digest")), _exported(records, one.step))
        for one in records.checkpoints
    ]  # fmt: skip
    if not rows:
        return section("Checkpoints", el("p", "None is committed."))
    heads = ("step", "claim", "attempt", "committed", "size", "state digest", "")
    return section("Checkpoints", table(heads, rows, numbers=(0, 1, 2)))


def configuration(records: RunRecords) -> Markup:
    """What was trained on what: hashes, numerics, sources, and the resolved configuration."""
    newest = records.checkpoints[-1].manifest if records.checkpoints else {}
    facts = [
        ("uid", records.manifest.get("metadata", {}).get("uid")),
        ("config hash", newest.get("config_hash")),
        ("data hash", newest.get("data_hash") or records.data.get("data_hash")),
        ("exported state", records.export.get("state_digest")),
        *((name.replace("_", " "), value) for name, value in (newest.get("numerics") or {}).items()),
    ]
    shown = [
        el("div", el("dt", name), el("dd", el("code", _inline(value)))) for name, value in facts if value is not None
    ]
    sources = [
        (name, *_split(source, "train"), *_split(source, "held_out"), el("code", source.get("content_xxh3")))
        for name, source in (records.data.get("sources") or {}).items()
    ]
    heads = ("source", "documents", "rows", "tokens", "held-out documents", "rows", "tokens", "content hash")
    config = json.dumps(records.config, indent=2, sort_keys=True)
    return section(
        "Configuration and data",
        el("dl", shown, class_="facts"),
        table(heads, sources, numbers=range(1, 7)) if sources else None,
        el("details", el("summary", "Resolved configuration"), el("pre", config)),
    )


def chronicle(records: RunRecords) -> Markup:
    """The log of decisions, folded away."""
    rows = [
        (unbroken(of_day(parse_time(event.get("time")))), event.get("attempt"), event.get("type"),
         el("code", event.get("rule")), event.get("reason"), event.get("message"))
        for event in story.chronicle(records)
    ]  # fmt: skip
    heads = ("time", "attempt", "kind", "rule", "reason", "message")
    summary = el("summary", f"{plural(len(rows), 'entry', 'entries')}: decisions, actions, faults")
    return section("Chronicle", el("details", summary, table(heads, rows, numbers=(1,))), class_="chronicle")


def _exported(records: RunRecords, step: int) -> str:
    return "exported" if records.export and records.export.get("step") == step else ""


def _split(source: Record, split: str) -> tuple[str, str, str]:
    counts: Mapping[str, int] = source.get(split) or {}
    return count(counts.get("documents")), count(counts.get("rows")), count(counts.get("tokens"))


def _inline(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
