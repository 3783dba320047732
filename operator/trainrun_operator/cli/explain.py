"""`trainrun explain`: why did it restart? Evidence, rule, action and budget left, attempt by attempt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainrun_operator.cli.finding import find_run
from trainrun_operator.local.disk import read_json, read_lines

DEFAULT_MAX_RESTARTS = 10
"""`spec.failurePolicy.maxRestarts` when the manifest does not say."""


def show_explanation(workdir: Path, name: str | None) -> int:
    """Print it."""
    run_dir = find_run(workdir, name)
    run = read_json(run_dir.status)
    for line in explain(run, list(read_lines(run_dir.events))):
        print(line)
    return 0


def explain(run: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> list[str]:
    """The story of a run in sentences."""
    status = run.get("status") or {}
    attempts = status.get("attempts") or []
    lines = []
    for attempt in attempts:
        lines += _attempt(attempt, [e for e in events if e.get("attempt") == attempt["number"]])
    if not attempts:
        lines.append("no attempt was started yet")
    ready = next((c for c in status.get("conditions") or [] if c["type"] == "Ready"), None)
    if ready is not None:
        lines.append(f"now: {status.get('phase')}: {ready['message']}")
    limit = (run["spec"].get("failurePolicy") or {}).get("maxRestarts", DEFAULT_MAX_RESTARTS)
    used = status.get("restarts", 0)
    lines.append(
        f"budget: {used} of {limit} restarts are used; failures of the program count, node faults and preemption do not"
    )
    return lines


def _attempt(attempt: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> list[str]:
    nodes = ", ".join(attempt.get("nodes") or []) or "no node yet"
    start = attempt.get("startStep")
    head = f"attempt {attempt['number']} on {nodes}" + (f", from step {start}" if start is not None else "")
    lines = [head]
    for event in events:
        if event.get("type") == "fault":
            lines.append(f"  fault asked for: {event.get('message')}")
        elif event.get("type") == "event" and event.get("reason") in MENDED:
            lines.append(f"  mended in its pods: {event.get('message')}")
    if attempt.get("cause") is None:
        return [*lines, "  goes on"]
    verdict = next((e for e in events if e.get("type") == "decision" and e.get("rule") in ENDING_RULES), None)
    end = attempt.get("endStep")
    lines.append(f"  ended: {attempt['cause']}" + (f", at step {end}" if end is not None else ""))
    lines.append(f"  evidence: {attempt.get('message') or (verdict or {}).get('message') or '-'}")
    if verdict is not None:
        lines.append(f"  rule: {verdict['rule']}")
    return [*lines, f"  action: {attempt.get('action') or '-'}"]


MENDED = frozenset({"RestartedInPlace", "SaveFailed"})
"""Troubles that an attempt survived."""

ENDING_RULES = frozenset(
    {
        "attempt_succeeded", "attempt_failed", "node_lost", "container_uncreatable", "job_deleted", "never_started",
        "stalled", "stop_done", "gang_incomplete",
    }
)  # fmt: skip
"""Rules of `core/decide.py` that close an attempt."""
