"""Run folders as local mode leaves them (design section 6), made by hand: small, exact and without training."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ORIGIN = datetime(2026, 11, 22, 3, 0, 0, tzinfo=UTC)
CONFIG = {"total_steps": 80, "seed": 7}


def at(seconds: float) -> str:
    """An API time, counted from the run's creation."""
    return (ORIGIN + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def unix(seconds: float) -> float:
    """The same as a timeline's instant."""
    return ORIGIN.timestamp() + seconds


def write(path: Path, value: Any) -> None:
    """One JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def step_line(step: int, claim: int, *, shift: float = 0.0) -> dict[str, Any]:
    """A metrics line; `shift` makes a replay diverge."""
    loss = 7.0 - step / 40 + shift
    line: dict[str, Any] = {"step": step, "loss": loss, "loss_hex": loss.hex(), "claim": claim, "tokens": 512 * step}
    if step % 20 == 0:
        line["eval"] = {
            "law": {"loss": loss, "perplexity": 900.0 - 5 * step},
            "news": {"loss": loss, "perplexity": 1200.0 - step},
        }
    return line


def claim(number: int, attempt: int, generation: int, parent: tuple[int, int] | None) -> dict[str, Any]:
    """A fencing claim; `parent` is (step, claim)."""
    named = None if parent is None else {"step": parent[0], "claim": parent[1]}
    return {"schema": 1, "k": number, "run_uid": "u", "attempt": attempt, "generation": generation, "parent": named}


def timeline(started: float) -> dict[str, float]:
    """A start whose phases take 0.5, 1.5 and 0.25 seconds."""
    names = ("process_started", "rendezvous_done", "loaded", "first_step_done")
    return {name: unix(started + gap) for name, gap in zip(names, (0.0, 0.5, 2.0, 2.25), strict=True)}


def survived(root: Path, *, diverges: bool = False) -> Path:
    """A run of 80 steps: a worker killed at step 25 (t=12), a node lost at step 50 (t=30), Succeeded at t=60."""
    store = root / "checkpoints"
    for number, made in enumerate([(0, 0, None), (0, 1, (20, 1)), (1, 0, (40, 2))], start=1):
        write(store / f"claims/{number}.json", claim(number, *made))
    for number, started in enumerate([5.0, 12.5, 34.0], start=1):
        write(
            store / f"metrics/c{number}.timeline.json",
            {"claim": number, "resumed_from_step": None, **timeline(started)},
        )
    write_lines(store / "metrics/c1.jsonl", [step_line(step, 1) for step in range(1, 26)])
    write_lines(store / "metrics/c2.jsonl", [step_line(step, 2) for step in range(21, 51)])
    shift = 0.5 if diverges else 0.0
    write_lines(store / "metrics/c3.jsonl", [step_line(step, 3, shift=shift) for step in range(41, 81)])
    for step, number in ((40, 2), (60, 3), (80, 3)):
        manifest = {
            "attempt": number - 2,
            "created_at": at(step),
            "state_digest": f"digest{step}",
            "config": CONFIG,
            "config_hash": "c0ffee",
            "data_hash": "da7a",
            "numerics": {"torch": "2.13.0", "world_size": 2},
            "files": {"shard-1": {"size": 1_500_000, "xxh3": "x"}},
        }
        write(store / f"step-{step}-c{number}/manifest.json", manifest)
    (store / "step-90-c3").mkdir()  # no manifest: it does not exist
    counts = {"documents": 38, "rows": 1110, "tokens": 71070}
    sources = {"law": {"content_xxh3": "b0ee", "train": counts, "held_out": {**counts, "documents": 1}}}
    write(store / "data/da7a/manifest.json", {"data_hash": "da7a", "sources": sources})
    write(store / "export/manifest.json", {"step": 80, "state_digest": "digest80"})
    write(root / "status.json", run_object("law-cpt", survived_status()))
    write_lines(root / "events.jsonl", survived_events())
    return root


def run_object(name: str, status: dict[str, Any]) -> dict[str, Any]:
    """The TrainingRun with its status."""
    metadata = {"name": name, "uid": "5a1e", "creationTimestamp": at(0)}
    return {"kind": "TrainingRun", "metadata": metadata, "spec": {"config": CONFIG}, "status": status}


def survived_status() -> dict[str, Any]:
    """Status of `survived`: the ledger adds up to 60 seconds."""
    return {
        "phase": "Succeeded",
        "result": "Succeeded",
        "attempt": 1,
        "endedAt": at(60),
        "progress": {"step": 80, "totalSteps": 80, "tokens": 40960, "tokensPerSecond": 1234.5},
        "attempts": [
            {
                "number": 0,
                "startedAt": at(0.1),
                "scheduledAt": at(1),
                "firstStepAt": at(7.25),
                "endedAt": at(31.5),
                "endStep": 50,
                "inplaceRestarts": 1,
                "cause": "NodeLost",
                "message": "Node slot-1 is lost: no answer.",
                "action": "It restarts at once, away from that node.",
            },
            {
                "number": 1,
                "startedAt": at(31.6),
                "scheduledAt": at(31.6),
                "firstStepAt": at(36.25),
                "endedAt": at(60),
                "endStep": 80,
                "cause": "Done",
                "action": "The run is complete.",
            },
        ],
        "goodput": {
            "ettr": 0.7125,
            "secondsByClass": {"training": 42.75, "starting": 12.0, "detecting": 1.5, "lost": 3.5, "recovering": 0.25},
        },
    }


def survived_events() -> list[dict[str, Any]]:
    """What the operator and the supervisor told."""
    lost = "Attempt 0 ended, NodeLost: Node slot-1 is lost: no answer."

    def decision(when: float, attempt: int, rule: str, reason: str, message: str) -> dict[str, Any]:
        return {
            "time": at(when),
            "type": "decision",
            "attempt": attempt,
            "rule": rule,
            "reason": reason,
            "message": message,
        }

    def create(when: float, attempt: int) -> dict[str, Any]:
        return {**decision(when, attempt, "attempt_starts", "CreateJob", "create the job"), "type": "action"}

    def fault(when: float, kind: str, step: int) -> dict[str, Any]:
        return {
            "time": at(when),
            "type": "fault",
            "attempt": 0,
            "step": step,
            "fault": f"{kind}@step={step}",
            "reason": kind,
            "message": f"{kind} happened",
        }

    return [
        decision(0.1, 0, "attempt_starts", "AttemptStarted", "Attempt 0 starts."),
        create(0.1, 0),
        {"time": at(0.1), "type": "event", "reason": "AttemptStarted", "message": "Attempt 0 starts."},
        fault(12.0, "kill-worker", 25),
        fault(30.0, "lose-node", 50),
        decision(31.5, 0, "node_lost", "Restarting", lost),
        {"time": at(31.5), "type": "event", "severity": "Warning", "reason": "Restarting", "message": lost},
        create(31.6, 1),
        decision(60, 1, "attempt_succeeded", "Succeeded", "The run reached its target at step 80."),
    ]
