"""`trainrun status`: one run on one screen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from trainrun_operator.cli.finding import find_run
from trainrun_operator.cli.plain import present_stage, progress_line
from trainrun_operator.local.disk import read_json
from trainrun_operator.local.layout import RunDir
from trainrun_operator.local.state import ask_progress, durable_step, is_supervised, live_pods

ATTEMPTS_SHOWN = 8


def show_status(workdir: Path, name: str | None) -> int:
    """Print it."""
    run_dir = find_run(workdir, name)
    run = read_json(run_dir.status)
    status: Mapping[str, Any] = run.get("status") or {}
    console = Console(highlight=False, soft_wrap=True)
    ready: Mapping[str, Any] = next((c for c in status.get("conditions") or [] if c["type"] == "Ready"), {})
    console.print(f"{run_dir.name}: {status.get('phase') or 'Pending'} ({ready.get('reason', '-')})", style="bold")
    console.print(f"  {ready.get('message', '')}")
    if status.get("result") is None and not is_supervised(run_dir):
        console.print("  nobody supervises it now; the same trainrun run command goes on", style="yellow")
    for label, text in _facts(run_dir, status):
        console.print(f"  {label:<11}{text}")
    attempts = status.get("attempts") or []
    if attempts:
        console.print(_attempts(attempts[-ATTEMPTS_SHOWN:]))
    return 0


def _facts(run_dir: RunDir, status: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    stage = present_stage(status)
    if stage:
        complete = ", ".join(done["name"] for done in status.get("stages") or []) or "none yet"
        facts.append(("stage", f"{stage}; complete: {complete}"))
    progress = ask_progress(run_dir)
    if progress.get("step") is not None:
        facts.append(("progress", progress_line(progress)))
    elif (status.get("progress") or {}).get("step") is not None:
        last = status["progress"]
        facts.append(("progress", f"step {last['step']}/{last.get('totalSteps', '?')}, as last heard"))
    step = durable_step(run_dir)
    if step is not None:
        facts.append(("checkpoint", f"step {step} is durable in {run_dir.checkpoints}"))
    pods = live_pods(run_dir)
    facts.append(("pods", ", ".join(f"{pod.name} on {pod.node}" for pod in pods) or "none runs"))
    if (status.get("nodes") or {}).get("excluded"):
        facts.append(("avoids", ", ".join(status["nodes"]["excluded"])))
    goodput = status.get("goodput") or {}
    seconds = {k: v for k, v in (goodput.get("secondsByClass") or {}).items() if v}
    if seconds:
        share = f"ETTR {goodput['ettr']:.0%}: " if goodput.get("ettr") is not None else ""
        facts.append(("goodput", share + ", ".join(f"{k} {v:.0f} s" for k, v in seconds.items())))
    return facts


def _attempts(attempts: list[Mapping[str, Any]]) -> Table:
    table = Table(
        "attempt",
        "started",
        "workers",
        "steps",
        "in place",
        "nodes",
        "ended by",
        box=None,
        pad_edge=False,
        padding=(0, 2),
    )
    for attempt in attempts:
        steps = f"{attempt.get('startStep', '?')} to {attempt.get('endStep', '...')}"
        table.add_row(
            str(attempt["number"]),
            str(attempt.get("startedAt", ""))[11:19],
            _workers(attempt),
            steps,
            str(attempt.get("inplaceRestarts") or 0),
            ", ".join(attempt.get("nodes") or []),
            str(attempt.get("cause") or "-"),
        )
    return table


def _workers(attempt: Mapping[str, Any]) -> str:
    """How many it ran on, and how many were wanted if that is more."""
    wanted = f" of {attempt['wantedReplicas']}" if attempt.get("wantedReplicas") else ""
    return f"{attempt.get('replicas', '?')}{wanted}"
