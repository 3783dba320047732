"""What `decide` answers: why, the status to write, and a closed set of actions.

The status is written before any action is carried out, so every action can be repeated by a successor
that knows nothing but the status.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal


@dataclass(frozen=True)
class CreateJob:
    """Create the PyTorchJob of an attempt; if it exists and is ours, it is the one."""

    attempt: int
    replicas: int
    excluded_nodes: tuple[str, ...]
    spares: int = 0


@dataclass(frozen=True)
class StopJob:
    """Delete a job and its pods. save: with the run's grace; abort: grace 1, devices are free at once."""

    name: str
    uid: str
    mode: Literal["save", "abort"]
    grace_seconds: int


@dataclass(frozen=True)
class ForceDeletePod:
    """Remove the object of a pod that a dead node will never give back."""

    name: str
    uid: str


@dataclass(frozen=True)
class ReplacePod:
    """Take a lost pod from its living job and remove its object; the job makes another one.

    Not removed alone: for a moment a removed pod is seen as one that is being deleted while it runs, which
    training-operator counts as a failure of the job.
    """

    name: str
    uid: str


@dataclass(frozen=True)
class DeleteRun:
    """Delete the finished run, its time to live is over."""

    uid: str


@dataclass(frozen=True)
class RecordEvent:
    """Tell people, once per change."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


Action = CreateJob | StopJob | ForceDeletePod | ReplacePod | DeleteRun | RecordEvent


@dataclass(frozen=True)
class Watch:
    """What the progress poller looks for; it calls for a new decision only when one of these is crossed."""

    attempt: int
    is_suspect: bool
    """Ask often: something may be wrong, or a limit is near."""
    first_step_missing: bool
    step_age_limit_seconds: float | None
    """None: no stall limit applies now."""
    phase: str
    """Another phase has another limit."""
    inplace_restarts: int
    heard_indices: frozenset[int]
    """Agents that answer; a change of this set is news."""
    silent_indices: frozenset[int]
    """Agents known to be silent."""
    ask_all: bool
    """Ask every pod, not worker 0 alone."""


@dataclass(frozen=True)
class Decision:
    """The outcome of one pass."""

    rule: str
    reason: str
    message: str
    status: dict[str, Any]
    """The complete new status; equal to the old one when there is nothing to write."""
    actions: tuple[Action, ...]
    next_wake: datetime | None
    """When to decide again although nothing happened; None: only when something does."""
    watch: Watch | None
    """None: there is nobody to ask."""
