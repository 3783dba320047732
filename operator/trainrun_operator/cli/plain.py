"""One line per event: for logs, pipes and CI. Also the words that the live view uses for events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TextIO

from trainrun_operator.local.observer import Snapshot

STEPS_BETWEEN_LINES = 10
"""A line of progress at most this often, in percent of the run."""


class PlainView:
    """Writes to a stream, flushing every line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told_share = 0
        self._is_heard = True

    def say(self, text: str) -> None:
        """A sentence of the supervisor. A reader that went away (`| head`) does not end the run."""
        if self._is_heard:
            try:
                print(text, file=self._stream, flush=True)
            except BrokenPipeError:
                self._is_heard = False

    def event(self, record: Mapping[str, Any]) -> None:
        """A line per event that a person wants to know."""
        text = describe(record)
        if text is not None:
            self.say(text)

    def snapshot(self, snapshot: Snapshot) -> None:
        """A line of progress for each tenth of the run."""
        step, total = snapshot.progress.get("step"), snapshot.progress.get("total_steps")
        if not step or not total:
            return
        share = 100 * step // total // STEPS_BETWEEN_LINES
        if share != self._told_share:
            self._told_share = share
            self.say(f"          {progress_line(snapshot.progress)}")

    def close(self) -> None:
        """Nothing is left to do."""


def describe(record: Mapping[str, Any]) -> str | None:
    """A record of events.jsonl in words; None when it is of no interest while watching."""
    kind, message = record.get("type"), record.get("message")
    if not message or kind not in ("event", "fault", "operator", "adopted"):
        return None
    time = str(record.get("time", ""))[11:19]
    label = {"fault": "FAULT", "operator": "OPERATOR", "adopted": "ADOPTED"}.get(str(kind), str(record.get("reason")))
    return f"{time}  {label}: {message}"


def progress_line(progress: Mapping[str, Any]) -> str:
    """Step, loss and speed."""
    parts = [f"step {progress['step']}/{progress.get('total_steps', '?')}"]
    if progress.get("loss") is not None:
        parts.append(f"loss {progress['loss']:.4f}")
    if progress.get("tokens_per_second"):
        parts.append(f"{progress['tokens_per_second']:,.0f} tokens/s")
    checkpoint = progress.get("durable_checkpoint") or {}
    if checkpoint.get("step") is not None:
        parts.append(f"checkpoint of step {checkpoint['step']}, {checkpoint.get('age_seconds', 0):.0f} s old")
    if progress.get("save_error"):
        parts.append(f"LAST SAVE FAILED: {progress['save_error']}")
    return "  ".join(parts)


def present_stage(status: Mapping[str, Any]) -> str:
    """Which stage a run of several is in; empty for any other."""
    attempts = status.get("attempts") or [{}]
    return str(status.get("stage", "")) if attempts[-1].get("stage") else ""
