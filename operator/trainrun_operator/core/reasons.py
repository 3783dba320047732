"""Every outcome of a decision in one place: condition reason, phase, sentence, event, and goodput class.

Rules name an outcome and its facts; the sentence is made here, so condition, event and log line always agree.
Sentences hold no number that changes from pass to pass: an unchanged situation writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kstatus = Literal["Ready", "Reconciling", "Stalled"]
"""Ready: as the spec wants it, so it trains, has succeeded, or rests; Reconciling: on the way; Stalled: a person must
act. Rest is Ready too: Flux and `helm --wait` take anything else for unfinished and would wait for ever."""


@dataclass(frozen=True)
class Outcome:
    """One way in which a pass can end."""

    reason: str
    phase: str
    kstatus: Kstatus
    event: Literal["Normal", "Warning"] | None
    """None: no Event, the state is not news."""
    goodput: str
    """Class on which the wall seconds from now on are booked (goodput.CLASSES)."""
    template: str
    """The sentence, with named facts."""


ALL: dict[str, Outcome] = {}


def _outcome(
    reason: str,
    phase: str,
    kstatus: Kstatus,
    event: Literal["Normal", "Warning"] | None,
    goodput: str,
    template: str,
) -> Outcome:
    outcome = Outcome(reason, phase, kstatus, event, goodput, template)
    ALL[reason] = outcome
    return outcome


# before and between attempts
SPEC_UNWORKABLE = _outcome(
    "SpecUnworkable", "Stalled", "Stalled", "Warning", "userFault", "The spec cannot work: {error}"
)
CREATION_REFUSED = _outcome(
    "CreationRefused",
    "Stalled",
    "Stalled",
    "Warning",
    "userFault",
    "The cluster refused the job of attempt {attempt}: {error} It is asked again every minute.",
)
PREVIOUS_RUN_TERMINATING = _outcome(
    "PreviousRunTerminating",
    "Pending",
    "Reconciling",
    "Normal",
    "stopping",
    "A deleted run of the same name still has {leftovers}; this one starts when they are gone.",
)
CHECKPOINT_PATH_IN_USE = _outcome(
    "CheckpointPathInUse",
    "Stalled",
    "Stalled",
    "Warning",
    "userFault",
    "spec.checkpoint.path is in use by the older run {rival}; give this run its own path, or wait for that run's end.",
)
SUSPENDED = _outcome(
    "Suspended",
    "Suspended",
    "Ready",
    "Normal",
    "suspended",
    "spec.suspend is true; false resumes from the newest checkpoint.",
)
BACKING_OFF = _outcome(
    "BackingOff", "Restarting", "Reconciling", None, "recovering", "Attempt {attempt} starts at {at}, after a back-off."
)
ATTEMPT_STARTED = _outcome(
    "AttemptStarted",
    "Starting",
    "Reconciling",
    "Normal",
    "starting",
    "Attempt {attempt} starts on {replicas} workers, {why}.",
)

# an open attempt
STARTING = _outcome(
    "Starting",
    "Starting",
    "Reconciling",
    None,
    "starting",
    "Attempt {attempt} is on its way to its first step.",
)
RUNNING = _outcome("Running", "Running", "Ready", "Normal", "training", "Attempt {attempt} trains.")
RUNNING_BLIND = _outcome(
    "Blind",
    "Running",
    "Ready",
    "Warning",
    "blind",
    "No agent of attempt {attempt} can be asked for progress ({why}); its pods live, so nothing is done.",
)
CONTRACT_UNKNOWN = _outcome(
    "ContractUnknown",
    "Running",
    "Ready",
    "Warning",
    "blind",
    "Blind: the trainer speaks contract schema {theirs}, this operator understands {ours}; upgrade the operator. "
    "The attempt is left alone.",
)
NODE_SUSPECT = _outcome(
    "NodeSuspect",
    "Running",
    "Ready",
    "Warning",
    "training",
    "{nodes} not Ready, but that is no ground for a verdict yet: {why}.",
)
IMAGE_PULL_RETRIED = _outcome(
    "ImagePullRetried", "Starting", "Reconciling", "Warning", "starting", "Pod {pod} cannot pull {image} yet: {error}"
)
CONTAINER_RETRIED = _outcome(
    "ContainerRetried",
    "Starting",
    "Reconciling",
    "Warning",
    "starting",
    "Pod {pod} cannot start its container yet: {error}",
)
WAITING_FOR_CAPACITY = _outcome(
    "WaitingForCapacity",
    "Pending",
    "Reconciling",
    "Normal",
    "waitingCapacity",
    "{waiting} of {total} pods have no node; clocks stand still, no budget is spent. The scheduler says: {scheduler}",
)
QUEUED = _outcome(
    "Queued",
    "Queued",
    "Reconciling",
    "Normal",
    "waitingCapacity",
    "The queue holds job {job} back; clocks stand still.",
)
PREEMPTED = _outcome(
    "Preempted",
    "Queued",
    "Reconciling",
    "Normal",
    "waitingCapacity",
    "The queue took the nodes of job {job} back; readmitted, the same attempt goes on from its newest checkpoint.",
)
FAILURE_SETTLING = _outcome(
    "FailureSettling",
    "Running",
    "Reconciling",
    None,
    "detecting",
    "A pod of attempt {attempt} failed; the others get a moment to say why.",
)
STOPPING = _outcome(
    "Stopping", "Stopping", "Reconciling", "Normal", "stopping", "Attempt {attempt} saves and stops: {why}"
)

# the end of an attempt, or of the run
ATTEMPT_STOPPED = _outcome(
    "AttemptStopped",
    "Stopping",
    "Reconciling",
    "Normal",
    "recovering",
    "Attempt {attempt} has stopped ({cause}): {why}",
)
RESTARTING = _outcome(
    "Restarting",
    "Restarting",
    "Reconciling",
    "Warning",
    "recovering",
    "Attempt {attempt} ended, {cause}: {evidence} {action}",
)
GANG_INCOMPLETE = _outcome(
    "GangIncomplete",
    "Pending",
    "Reconciling",
    "Normal",
    "waitingCapacity",
    "Attempt {attempt} got only a part of its nodes for {minutes} minutes and gives them back; it asks again at {at}.",
)
SUCCEEDED = _outcome("Succeeded", "Succeeded", "Ready", "Normal", "finished", "The run reached its target{step}.")
FAILED = _outcome(
    "Failed",
    "Failed",
    "Stalled",
    "Warning",
    "finished",
    "Attempt {attempt} ended the run, {cause}: {evidence} {action}",
)
DELETED = _outcome(
    "Deleted",
    "Terminating",
    "Reconciling",
    None,
    "stopping",
    "The run is deleted; its pods save and stop by themselves.",
)
EXPIRED = _outcome(
    "Expired", "Terminating", "Reconciling", None, "finished", "ttlSecondsAfterFinished is over; the run is deleted."
)
