"""What the records mean, in sentences and small tables of values. No markup here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from trainrun_api.page.words import count, duration, figure, parse_time, percent, plural, times

from trainrun_operator.report.records import Learning, Record, RunRecords, from_unix, unix
from trainrun_operator.report.recovery import Recovery

ENDINGS = {"Restarting", "Failed", "AttemptStopped", "GangIncomplete", "FewerWorkers"}
"""Reasons of decisions that end an attempt."""


@dataclass(frozen=True)
class Failure:
    """Something that interrupted the training."""

    at: datetime | None
    attempt: int
    step: int | None
    cause: str
    evidence: str
    rule: str
    action: str


def losses(learning: Learning) -> list[tuple[float, float]]:
    """(step, loss), in order."""
    return [(float(line["step"]), float(line["loss"])) for line in learning.steps if line.get("loss") is not None]


def perplexities(learning: Learning) -> dict[str, list[tuple[float, float]]]:
    """Source -> (step, held-out perplexity), in order."""
    out: dict[str, list[tuple[float, float]]] = {}
    for line in learning.steps:
        for source, result in (line.get("eval") or {}).items():
            if isinstance(result, Mapping) and result.get("perplexity") is not None:
                out.setdefault(source, []).append((float(line["step"]), float(result["perplexity"])))
    return dict(sorted(out.items()))


def step_and_target(records: RunRecords) -> tuple[int | None, int | None]:
    """Newest step that counts, and the wanted number of steps."""
    progress = records.status.progress
    newest = int(records.steps[-1]["step"]) if records.steps else None
    known = [step for step in (newest, progress.step) if step is not None]
    return max(known, default=None), progress.total_steps or records.config.get("total_steps")


def failures(records: RunRecords, recoveries: Sequence[Recovery]) -> list[Failure]:
    """Ended attempts that were not done, and restarts in place, in order of time."""
    found = [
        Failure(
            at=parse_time(attempt.ended_at),
            attempt=attempt.number,
            step=attempt.end_step,
            cause=attempt.cause or "unknown",
            evidence=attempt.message or "",
            rule=_rule(records, attempt.number),
            action=attempt.action or "",
        )
        for attempt in records.attempts
        if attempt.ended_at and attempt.cause != "Done"
    ]
    found += [
        Failure(
            at=from_unix(recovery.begins_at),
            attempt=recovery.attempt,
            step=_step_of(recovery),
            cause="WorkerEnded",
            evidence=f"A worker process ended abnormally ({recovery.fault}).",
            rule="in the pod, by its agent",
            action=f"The workers were restarted in place and went on after {duration(recovery.total_seconds)}.",
        )
        for recovery in recoveries
        if recovery.is_in_place
    ]
    return sorted(found, key=lambda failure: unix(failure.at) or 0.0)


def sentence(records: RunRecords, recoveries: Sequence[Recovery]) -> str:
    """The run in one sentence, and what befell it in another."""
    return f"{_outcome(records)} {_interruptions(records, recoveries)}"


def _outcome(records: RunRecords) -> str:
    step, target = step_and_target(records)
    where = f"step {step} of {target}" if step is not None and target else "no step yet"
    wall = duration(records.wall_seconds)
    curve = losses(records.learning[-1])
    learnt = f", loss {figure(curve[0][1])} to {figure(curve[-1][1])}" if len(curve) > 1 else ""
    held_out = "".join(
        f", {source} perplexity {figure(points[0][1])} to {figure(points[-1][1])}"
        for source, points in perplexities(records.learning[-1]).items()
        if len(points) > 1
    )
    result = records.status.result
    if result == "Succeeded":
        return f"{records.name} reached {where} in {wall}{learnt}{held_out}."
    if result == "Failed":
        failure = records.status.failure
        why = f": {failure.cause}. {' '.join(failure.evidence)}" if failure else "."
        return f"{records.name} failed after {wall} at {where}{why}"
    return f"{records.name} is {records.status.phase or 'not started'} after {wall}, at {where}{learnt}{held_out}."


def _interruptions(records: RunRecords, recoveries: Sequence[Recovery]) -> str:
    if not recoveries:
        return "Nothing interrupted it."
    in_place = sum(recovery.is_in_place for recovery in recoveries)
    anew = len(recoveries) - in_place
    repeated = sum(recovery.repeated_steps or 0 for recovery in recoveries)
    seconds = sum(recovery.total_seconds for recovery in recoveries)
    kinds = [
        plural(in_place, "restart in place", "restarts in place") if in_place else "",
        plural(anew, "new attempt") if anew else "",
    ]
    told = " and ".join(kind for kind in kinds if kind)
    cost = f"{duration(seconds)} to the next step in all, {plural(repeated, 'step')} done again"
    return f"It was interrupted {times(len(recoveries))}: {told}, {cost}; each step counts once."


def proof(records: RunRecords) -> str:
    """Whether steps that ran again gave the same losses."""
    replays = records.replays
    if not replays.number:
        return ""
    again = f"{plural(replays.number, 'step')} ran again after a resume"
    if not replays.diverged:
        return f"{again}, each with the same loss to the last bit."
    steps = ", ".join(str(step) for step in replays.diverged[:5])
    return f"{again}; {len(replays.diverged)} of them with another loss (steps {steps}), see ReplayDiverged below."


def tiles(records: RunRecords) -> list[tuple[str, str, str]]:
    """(title, value, small print) of the figures that a reader asks first."""
    status = records.status
    step, target = step_and_target(records)
    curve, progress = losses(records.learning[-1]), status.progress
    inplace = sum(attempt.inplace_restarts for attempt in status.attempts)
    tokens = records.steps[-1].get("tokens") if records.steps else progress.tokens
    out = [
        ("Step", count(step), f"of {count(target)}"),
        (
            "Loss",
            figure(curve[-1][1]) if curve else "\u2013",
            f"from {figure(curve[0][1])}" if curve else "no step yet",
        ),
    ]
    for source, points in perplexities(records.learning[-1]).items():
        best = min(points, key=lambda point: point[1])
        out.append((f"Perplexity {source}", figure(best[1]), f"held out, best, step {best[0]:,.0f}"))
    out += [
        ("Effective time (ETTR)", percent(status.goodput.ettr), "training share of wall time"),
        ("Wall time", duration(records.wall_seconds), "creation to end"),
        (
            "Attempts",
            str((status.attempt if status.attempt is not None else -1) + 1),
            plural(inplace, "restart in place", "restarts in place"),
        ),
        ("Tokens", count(tokens), f"{count(progress.tokens_per_second)} per second at last"),
    ]
    return out


def chronicle(records: RunRecords, most: int = 300) -> list[Record]:
    """Decisions, actions, faults and what else was told, newest `most`; Events that repeat a decision are left out."""
    decided = {
        (event.get("reason"), event.get("message")) for event in records.events if event.get("type") == "decision"
    }
    told = [
        event
        for event in records.events
        if event.get("reason") != "RecordEvent"
        and (event.get("type") != "event" or (event.get("reason"), event.get("message")) not in decided)
    ]
    return told[-most:]


def _rule(records: RunRecords, attempt: int) -> str:
    for event in records.events:
        if event.get("type") == "decision" and event.get("attempt") == attempt and event.get("reason") in ENDINGS:
            return str(event.get("rule", ""))
    return ""


def _step_of(recovery: Recovery) -> int | None:
    if recovery.parent_step is None or recovery.repeated_steps is None:
        return None
    return recovery.parent_step + recovery.repeated_steps
