"""The live view: events scroll by, and below them stands the run's present state."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trainrun_operator.cli.plain import describe, present_stage
from trainrun_operator.local.observer import Snapshot

BAR_WIDTH = 40
STYLE_OF_TYPE = {"fault": "bold magenta", "operator": "yellow", "adopted": "yellow"}


class LiveView:
    """Redraws a few lines at the bottom of the terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._phase = ""
        self._phase_since = 0.0

    def say(self, text: str) -> None:
        """A sentence above the state."""
        self._live.console.print(Text(text, style="bold"))

    def event(self, record: Mapping[str, Any]) -> None:
        """A line above the state."""
        text = describe(record)
        if text is None:
            return
        style = STYLE_OF_TYPE.get(str(record.get("type")), "red" if record.get("severity") == "Warning" else "")
        self._live.console.print(Text(text, style=style))

    def snapshot(self, snapshot: Snapshot) -> None:
        """Draw the state anew."""
        phase = str((snapshot.run.get("status") or {}).get("phase") or "Pending")
        if phase != self._phase:
            self._phase, self._phase_since = phase, time.monotonic()
        self._live.start()  # does nothing when it runs already
        self._live.update(state_panel(snapshot, time.monotonic() - self._phase_since), refresh=True)

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()


def state_panel(snapshot: Snapshot, phase_seconds: float) -> Group:
    """Three lines: where the run is, how it trains, what was decided last."""
    status = snapshot.run.get("status") or {}
    progress = snapshot.progress
    step = progress.get("step")
    if step is None:
        step = (status.get("progress") or {}).get("step") or 0
    total = progress.get("total_steps") or (status.get("progress") or {}).get("totalSteps")
    stage = present_stage(status)
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(snapshot.run["metadata"]["name"], style="bold"),
        Text(str(status.get("phase") or "Pending"), style="green" if status.get("phase") == "Running" else "yellow"),
        f"{phase_seconds:.0f} s",
        f"attempt {status.get('attempt', '-')}" + (f", stage {stage}" if stage else ""),
        ProgressBar(total=total or 1, completed=step, width=BAR_WIDTH),
        f"step {step}/{total or '?'}",
    )
    facts = "  ".join(_facts(progress, status))
    ready: Mapping[str, Any] = next((c for c in status.get("conditions") or [] if c["type"] == "Ready"), {})
    rule = snapshot.last_decision.get("rule")
    decision = f"last decision: {rule}: {ready.get('message', '')}" if rule else str(ready.get("message", ""))
    return Group(head, Text(facts), Text(decision, style="dim", overflow="ellipsis", no_wrap=True))


def _facts(progress: Mapping[str, Any], status: Mapping[str, Any]) -> list[str]:
    if not progress:
        return ["no agent answers"]
    facts = [str(progress.get("phase", ""))]
    if progress.get("loss") is not None:
        facts.append(f"loss {progress['loss']:.4f}")
    if progress.get("tokens_per_second"):
        facts.append(f"{progress['tokens_per_second']:,.0f} tokens/s")
    checkpoint = progress.get("durable_checkpoint") or {}
    if checkpoint.get("step") is not None:
        facts.append(f"checkpoint: step {checkpoint['step']}, {checkpoint.get('age_seconds') or 0:.0f} s old")
    if progress.get("inplace_restarts"):
        facts.append(f"in-place restarts: {progress['inplace_restarts']}")
    excluded = (status.get("nodes") or {}).get("excluded")
    if excluded:
        facts.append(f"avoids {', '.join(excluded)}")
    if progress.get("save_error"):
        facts.append(f"last save failed: {progress['save_error']}")
    return facts
