"""What people read: the story of a run, its events and its live state."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console
from trainrun_operator.cli.explain import explain
from trainrun_operator.cli.live import state_panel
from trainrun_operator.cli.plain import PlainView, describe
from trainrun_operator.local.observer import Snapshot

READY = {"type": "Ready", "status": "True", "reason": "Running", "message": "Attempt 1 trains."}
RUN: dict[str, Any] = {
    "metadata": {"name": "tiny"},
    "spec": {"failurePolicy": {"maxRestarts": 3}},
    "status": {
        "phase": "Running",
        "attempt": 1,
        "restarts": 1,
        "conditions": [READY],
        "nodes": {"excluded": ["slot-1"]},
        "attempts": [
            {
                "number": 0, "nodes": ["slot-0", "slot-1"], "startStep": 0, "endStep": 25, "cause": "NodeLost",
                "message": "Node slot-1 is lost.", "action": "It restarts at once.",
            },
            {"number": 1, "nodes": ["slot-0", "slot-2"], "startStep": 20},
        ],
    },
}  # fmt: skip
PROGRESS = {
    "phase": "training", "step": 30, "total_steps": 40, "loss": 1.23456, "tokens_per_second": 4321.0,
    "inplace_restarts": 1, "durable_checkpoint": {"step": 20, "age_seconds": 3.2}, "save_error": "disk full",
}  # fmt: skip


def test_explain_tells_each_attempt_with_evidence_rule_action_and_budget() -> None:
    """The whole answer to: why did it restart?"""
    events = [
        {"attempt": 0, "type": "fault", "message": "slot-1 is gone with everything on it"},
        {"attempt": 0, "type": "event", "reason": "RestartedInPlace", "message": "a worker died"},
        {"attempt": 0, "type": "decision", "rule": "node_suspected", "message": "not yet"},
        {"attempt": 0, "type": "decision", "rule": "node_lost", "message": "Attempt 0 ended"},
    ]
    assert explain(RUN, events) == [
        "attempt 0 on slot-0, slot-1, from step 0",
        "  fault asked for: slot-1 is gone with everything on it",
        "  mended in its pods: a worker died",
        "  ended: NodeLost, at step 25",
        "  evidence: Node slot-1 is lost.",
        "  rule: node_lost",
        "  action: It restarts at once.",
        "attempt 1 on slot-0, slot-2, from step 20",
        "  goes on",
        "now: Running: Attempt 1 trains.",
        "budget: 1 of 3 restarts are used; failures of the program count, node faults and preemption do not",
    ]


def test_explain_before_the_first_attempt() -> None:
    """Nothing to explain is said too."""
    assert explain({"spec": {}}, [])[0] == "no attempt was started yet"


def test_only_what_a_person_wants_to_know_is_an_event_line() -> None:
    """Decisions and actions stay in events.jsonl."""
    time = "2026-01-02T03:04:05.678Z"
    told = {"time": time, "type": "event", "reason": "Running", "message": "Attempt 0 trains."}
    assert describe(told) == "03:04:05  Running: Attempt 0 trains."
    assert describe({"time": time, "type": "fault", "message": "slot-1 is gone"}) == "03:04:05  FAULT: slot-1 is gone"
    assert describe({"time": time, "type": "decision", "message": "x"}) is None
    assert describe({"time": time, "type": "action", "message": "x"}) is None


def test_the_live_state_shows_step_loss_speed_checkpoint_and_decision() -> None:
    """Three lines, all of the run."""
    console = Console(file=io.StringIO(), width=160)
    console.print(state_panel(Snapshot(RUN, PROGRESS, {"rule": "attempt_runs"}), 7.0))
    head, facts, decision, *rest = console.file.getvalue().splitlines()
    assert [word in head for word in ("tiny", "Running", "7 s", "attempt 1", "step 30/40")] == [True] * 5
    assert facts.split("  ") == [
        "training", "loss 1.2346", "4,321 tokens/s", "checkpoint: step 20, 3 s old", "in-place restarts: 1",
        "avoids slot-1", "last save failed: disk full",
    ]  # fmt: skip
    assert decision.strip() == "last decision: attempt_runs: Attempt 1 trains."
    assert rest == []


def test_the_plain_view_tells_each_tenth_once_and_survives_its_reader() -> None:
    """Lines of progress are few; a closed pipe ends the lines, not the run."""
    stream = io.StringIO()
    view = PlainView(stream)
    for step in (1, 3, 4, 5, 39, 39, 40):
        view.snapshot(Snapshot(RUN, {"step": step, "total_steps": 40, "loss": 1.0}, {}))
    steps = [line.split()[1] for line in stream.getvalue().splitlines()]
    assert steps == ["4/40", "39/40", "40/40"]

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    PlainView(Closed()).say("nobody listens")
