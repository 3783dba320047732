"""Where the seconds between a fault and the next optimizer step went, phase by phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from trainrun_api.page.words import parse_time

from trainrun_operator.report.records import RunRecords, Start, read, unix

PHASES = ("detect", "decide", "start", "rendezvous", "load", "first step")
"""fault -> verdict -> job created -> processes up -> rendezvous done -> checkpoint loaded -> step done."""

_INSTANTS = (
    ("start", "process_started"),
    ("rendezvous", "rendezvous_done"),
    ("load", "loaded"),
    ("first step", "first_step_done"),
)


@dataclass(frozen=True)
class Recovery:
    """One new beginning of the worker group."""

    fault: str
    """What was done to the run, or what happened to it."""
    cause: str
    """What the operator saw; "restarted in place" when it had nothing to do."""
    begins_at: float
    """Unix seconds."""
    attempt: int
    generation: int
    stage: str
    parent_step: int | None
    repeated_steps: int | None
    """Steps that had been done and were done again."""
    seconds: Mapping[str, float]
    """By phase; a restart in place has no verdict, so detection is part of its start."""

    @property
    def total_seconds(self) -> float:
        """From the fault to the next step, as far as it is known."""
        return sum(self.seconds.values())

    @property
    def is_in_place(self) -> bool:
        """The agent restarted the workers; the attempt went on."""
        return self.generation > 0


def recoveries(run: Path | RunRecords) -> list[Recovery]:
    """Every new beginning after the first, oldest first."""
    records = read(run) if isinstance(run, Path) else run
    starts = [start for start in records.starts if start.instants]
    return [_recovery(records, before, start) for before, start in pairwise(starts) if before.stage == start.stage]


def spans(begins_at: float, moments: Mapping[str, float | None], phases: Sequence[str]) -> dict[str, float]:
    """Seconds from each known moment to the next; a phase whose moment is unknown joins the one after it."""
    found, here = {}, begins_at
    for phase in phases:
        moment = moments.get(phase)
        if moment is not None:
            found[phase] = max(0.0, moment - here)
            here = max(here, moment)
    return found


def _recovery(records: RunRecords, before: Start, start: Start) -> Recovery:
    since = max(before.instants.values())
    until = start.instants.get("process_started", max(start.instants.values()))
    fault = _fault_between(records, before.instants.get("process_started", since), until)
    is_in_place = start.generation > 0 and start.attempt == before.attempt
    moments: dict[str, float | None] = {}
    if not is_in_place:
        moments["detect"] = _decision_time(records, before.attempt, since)
        moments["decide"] = _creation_time(records, start.attempt)
    for phase, name in _INSTANTS:
        moments[phase] = start.instants.get(name)
    known = [moment for moment in moments.values() if moment is not None]
    begins_at = fault[0] if fault else min(known, default=since)
    last_step = _last_step(records, before, start)
    return Recovery(
        fault=fault[1] if fault else "none was asked for",
        cause="restarted in place" if is_in_place else _cause(records, before.attempt),
        begins_at=begins_at,
        attempt=start.attempt,
        generation=start.generation,
        stage=start.stage,
        parent_step=start.parent_step,
        repeated_steps=None if last_step is None or start.parent_step is None else last_step - start.parent_step,
        seconds=spans(begins_at, moments, PHASES),
    )


def _fault_between(records: RunRecords, since: float, until: float) -> tuple[float, str] | None:
    """The first fault of a worker or node in the span; a corrupted checkpoint interrupts nothing by itself."""
    for event in records.faults:
        moment = unix(parse_time(event.get("time")))
        if (
            moment is not None
            and since <= moment <= until
            and event.get("reason") not in ("corrupt-checkpoint", "kill-operator")
        ):
            return moment, str(event.get("fault") or event.get("reason"))
    return None


def _decision_time(records: RunRecords, attempt: int, since: float) -> float | None:
    """When the attempt was judged: its end as status has it."""
    for status in records.attempts:
        if status.number == attempt:
            ended = unix(parse_time(status.ended_at))
            return ended if ended is not None and ended >= since - 1 else None
    return None


def _creation_time(records: RunRecords, attempt: int) -> float | None:
    for event in records.events:
        if event.get("type") == "action" and event.get("reason") == "CreateJob" and event.get("attempt") == attempt:
            return unix(parse_time(event.get("time")))
    return None


def _cause(records: RunRecords, attempt: int) -> str:
    return next((status.cause or "unknown" for status in records.attempts if status.number == attempt), "unknown")


def _last_step(records: RunRecords, before: Start, start: Start) -> int | None:
    """Newest step that the group before had done: as the fault or the attempt's end says."""
    until = start.instants.get("process_started", 0.0)
    since = before.instants.get("process_started", 0.0)
    steps = [
        int(event["step"])
        for event in records.faults
        if isinstance(event.get("step"), int) and since <= (unix(parse_time(event.get("time"))) or 0.0) <= until
    ]
    if start.attempt != before.attempt:
        steps += [s.end_step for s in records.attempts if s.number == before.attempt and s.end_step is not None]
    return max(steps, default=None)
