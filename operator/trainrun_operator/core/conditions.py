"""The condition types and phases of a run, each with what people are told about it (docs/conditions.md). Pure data.

Reasons of all types but CheckpointFresh are the outcomes of reasons.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ConditionType:
    """One type of condition, and when it is what."""

    when_true: str
    when_false: str
    when_absent: str
    readers: str


READY, RECONCILING, STALLED = "Ready", "Reconciling", "Stalled"
COMPLETED, CHECKPOINT_FRESH = "Completed", "CheckpointFresh"

TYPES = {
    READY: ConditionType(
        "The run is as its spec wants it: it trains, has succeeded, or rests because of spec.suspend.",
        "It is on its way (Reconciling) or needs a person (Stalled).",
        "The operator has not seen the run yet.",
        "`kubectl wait`, `kubectl get -o wide` (Reason), kstatus, Argo CD",
    ),
    RECONCILING: ConditionType(
        "On its way: starting, queued, without nodes, restarting, stopping.",
        "Never; it is absent then.",
        "Not on its way.",
        "kstatus (Flux, Helm 4), Argo CD",
    ),
    STALLED: ConditionType(
        "A person must act: the run failed, its job was refused, or its spec cannot work.",
        "Never; it is absent then.",
        "Nobody needs to act.",
        "kstatus (Flux, Helm 4), Argo CD, alerts",
    ),
    COMPLETED: ConditionType(
        "The run has succeeded, for good.",
        "It has not, or not yet.",
        "The operator has not seen the run yet.",
        "scripts that wait for the result",
    ),
    CHECKPOINT_FRESH: ConditionType(
        "A failure now costs little: the newest durable checkpoint is recent.",
        "A failure now costs all steps since an old one.",
        "No checkpoint is known yet.",
        "alerts",
    ),
}
"""Every type that is ours; conditions of other types are left alone."""

PHASES = {
    "Pending": "Waits for nodes, or for a deleted run of the same name to go.",
    "Queued": "A queue holds the job back, or took its nodes.",
    "Starting": "Pods start; no step yet.",
    "Running": "Steps are made, or were a moment ago.",
    "Stopping": "Saves and stops as wanted.",
    "Restarting": "An attempt has failed; the next one comes.",
    "Suspended": "Rests because of spec.suspend.",
    "Stalled": "Cannot go on until a person acts; goes on by itself afterwards.",
    "Succeeded": "Over: the target is reached.",
    "Failed": "Over without its result.",
    "Terminating": "Is being deleted.",
}
"""A summary for people; no rule reads it."""


@dataclass(frozen=True)
class Freshness:
    """One reason of CheckpointFresh."""

    reason: str
    status: Literal["True", "False", "Unknown"]
    template: str
    """The sentence, with named facts."""
    meaning: str
    todo: str


FRESHNESS: dict[str, Freshness] = {}


def _freshness(
    reason: str, status: Literal["True", "False", "Unknown"], template: str, *, meaning: str, todo: str
) -> Freshness:
    FRESHNESS[reason] = Freshness(reason, status, template, meaning, todo)
    return FRESHNESS[reason]


NOT_TRAINING = _freshness(
    "NotTraining",
    "Unknown",
    "The newest durable checkpoint is that of step {step}.",
    meaning="No attempt makes steps, so nothing can be lost.",
    todo="Nothing.",
)
CHECKPOINT_OLD = _freshness(
    "CheckpointOld",
    "False",
    "No checkpoint was committed for three intervals; a failure now costs all since.",
    meaning="For three intervals and at least 15 minutes no checkpoint was committed, though steps are made.",
    todo="Look at the storage (full, slow, rights) and at the pods' logs for saves that failed.",
)
CHECKPOINT_RECENT = _freshness(
    "CheckpointRecent",
    "True",
    "The newest durable checkpoint is within three intervals.",
    meaning="Saving works.",
    todo="Nothing.",
)
