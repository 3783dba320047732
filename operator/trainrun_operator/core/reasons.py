"""Every outcome of a decision in one place: condition reason, phase, sentence, event, and goodput class.

Rules name an outcome and its facts; the sentence is made here, so condition, event and log line always agree.
Sentences hold no number that changes from pass to pass: an unchanged situation writes nothing.
"""

from __future__ import annotations

from typing import Literal

from trainrun_operator.core.outcome import Kstatus, Outcome

ALL: dict[str, Outcome] = {}


def _outcome(
    reason: str,
    phase: str,
    kstatus: Kstatus,
    event: Literal["Normal", "Warning"] | None,
    goodput: str,
    template: str,
    *,
    meaning: str,
    todo: str,
) -> Outcome:
    outcome = Outcome(reason, phase, kstatus, event, goodput, template, meaning, todo)
    ALL[reason] = outcome
    return outcome


# before and between attempts
SPEC_UNWORKABLE = _outcome(
    "SpecUnworkable",
    "Stalled",
    "Stalled",
    "Warning",
    "userFault",
    "The spec cannot work: {error}",
    meaning="The spec cannot be read or contradicts itself; an open attempt is left alone.",
    todo="Correct the field that the message names; `trainrun validate FILE` checks it without a cluster.",
)
CREATION_REFUSED = _outcome(
    "CreationRefused",
    "Stalled",
    "Stalled",
    "Warning",
    "userFault",
    "The cluster refused the job of attempt {attempt}: {error} It is asked again every minute.",
    meaning="The API server refused the attempt's PyTorchJob: a quota, a webhook, or rights.",
    todo="Remove what the message names (raise the quota, correct the template); it is asked again every minute.",
)
PREVIOUS_RUN_TERMINATING = _outcome(
    "PreviousRunTerminating",
    "Pending",
    "Reconciling",
    "Normal",
    "stopping",
    "A deleted run of the same name still has {leftovers}; this one starts when they are gone.",
    meaning="Jobs or pods of a deleted run of the same name are still going away.",
    todo="Nothing; if it lasts, look at why the named job or pod stays Terminating.",
)
CHECKPOINT_PATH_IN_USE = _outcome(
    "CheckpointPathInUse",
    "Stalled",
    "Stalled",
    "Warning",
    "userFault",
    "spec.checkpoint.path is in use by the older run {rival}; give this run its own path, or wait for that run's end.",
    meaning="An older run that is not over writes to the same checkpoint path; two writers would ruin it.",
    todo="Give this run a path of its own under a new name, or end the older run.",
)
PARENT_MISSING = _outcome(
    "ParentMissing",
    "Stalled",
    "Stalled",
    "Warning",
    "userFault",
    "spec.resume.run={run} does not exist in this namespace; create that run, or this one with another spec.resume.",
    meaning="The run whose result this one starts from is not there; it is looked for every 15 s.",
    todo="Create that run, or make this one anew with the right name.",
)
PARENT_AWAITED = _outcome(
    "ParentAwaited",
    "Pending",
    "Reconciling",
    "Normal",
    "waitingCapacity",
    "Waits for run {run} to succeed; this one starts from its result.",
    meaning="With resume.from: Run, the named run is not over yet; this one holds nothing meanwhile.",
    todo="Nothing; it starts by itself.",
)
PARENT_FAILED = _outcome(
    "ParentFailed",
    "Stalled",
    "Stalled",
    "Warning",
    "userFault",
    "Run {run}, whose result this one starts from, has failed; create it anew under its name, or delete this run.",
    meaning="With resume.from: Run, the named run ended without a result.",
    todo="Mend that run and create it anew; this one starts when it has succeeded.",
)
SUSPENDED = _outcome(
    "Suspended",
    "Suspended",
    "Ready",
    "Normal",
    "suspended",
    "spec.suspend is true; false resumes from the newest checkpoint.",
    meaning="The run rests on its newest checkpoint and holds no devices.",
    todo="Nothing; set spec.suspend to false when it shall go on.",
)
BACKING_OFF = _outcome(
    "BackingOff",
    "Restarting",
    "Reconciling",
    None,
    "recovering",
    "Attempt {attempt} starts at {at}, after a back-off.",
    meaning="The last attempt ended by the program's fault or got half of its nodes; the next one waits a little.",
    todo="Nothing; `status.attempts` says why the last one ended.",
)
ATTEMPT_STARTED = _outcome(
    "AttemptStarted",
    "Starting",
    "Reconciling",
    "Normal",
    "starting",
    "Attempt {attempt} starts on {workers}, {why}.",
    meaning="A new attempt is on record and its job is about to be created.",
    todo="Nothing.",
)

# an open attempt
STARTING = _outcome(
    "Starting",
    "Starting",
    "Reconciling",
    None,
    "starting",
    "Attempt {attempt} is on its way to its first step.",
    meaning="Pods start, load the model and its checkpoint; no step is made yet.",
    todo="Nothing; health.startupTimeoutSeconds ends it if no step comes.",
)
RUNNING = _outcome(
    "Running",
    "Running",
    "Ready",
    "Normal",
    "training",
    "Attempt {attempt} trains.",
    meaning="Steps are made.",
    todo="Nothing.",
)
RUNNING_ON_FEWER = _outcome(
    "RunningOnFewerWorkers",
    "Running",
    "Ready",
    "Normal",
    "training",
    "Attempt {attempt} trains on {workers} of {wanted} workers; the next attempt asks for all.",
    meaning="Steps are made on fewer workers than wanted (minReplicas); it stops for all when good nodes are there.",
    todo="Nothing if nodes will come; a new spec.restartToken asks for all workers now.",
)
RUNNING_BLIND = _outcome(
    "Blind",
    "Running",
    "Ready",
    "Warning",
    "blind",
    "No agent of attempt {attempt} can be asked for progress ({why}); its pods live, so nothing is done.",
    meaning="No agent can be asked for progress although the pods live: neither health nor failure is known.",
    todo="Look for a NetworkPolicy or mesh between operator and pods; training goes on meanwhile.",
)
CONTRACT_UNKNOWN = _outcome(
    "ContractUnknown",
    "Running",
    "Ready",
    "Warning",
    "blind",
    "Blind: the trainer speaks contract schema {theirs}, this operator understands {ours}; upgrade the operator. "
    "The attempt is left alone.",
    meaning="The trainer image speaks a contract that this operator does not know; the attempt is left alone.",
    todo="Bring operator and image to versions that fit, mostly by upgrading the operator; the attempt goes on.",
)
NODE_SUSPECT = _outcome(
    "NodeSuspect",
    "Running",
    "Ready",
    "Warning",
    "training",
    "{nodes} not Ready, but that is no ground for a verdict yet: {why}.",
    meaning="A node of the run is not Ready for 3 s, but steps are made, its agent answers, or too many are so.",
    todo="Nothing for the run; look at the node, or at the control plane if it is many.",
)
TAKEOVER_AWAITED = _outcome(
    "TakeoverAwaited",
    "Running",
    "Reconciling",
    "Warning",
    "recovering",
    "Attempt {attempt} lost {nodes}; a warm spare is about to take the seat.",
    meaning="A node with a worker is lost, and a pod that waits warm takes its place; no new attempt is needed.",
    todo="Nothing; if no spare has the seat within 20 s, the attempt ends and the next one starts.",
)
MEMBERS_REPLACED = _outcome(
    "MembersReplaced",
    "Running",
    "Ready",
    "Warning",
    "training",
    "Attempt {attempt} goes on without {pods}; the cluster makes the next spare.",
    meaning="A spare has taken a lost worker's seat, or a spare itself is lost; the lost pod is removed by force.",
    todo="Nothing for the run; look at the node.",
)
IMAGE_PULL_RETRIED = _outcome(
    "ImagePullRetried",
    "Starting",
    "Reconciling",
    "Warning",
    "starting",
    "Pod {pod} cannot pull {image} yet: {error}",
    meaning="An image cannot be pulled yet; it is tried again for a while, then the run fails.",
    todo="If the message is not a passing one: correct spec.image, its tag or the pull secret.",
)
CONTAINER_RETRIED = _outcome(
    "ContainerRetried",
    "Starting",
    "Reconciling",
    "Warning",
    "starting",
    "Pod {pod} cannot start its container yet: {error}",
    meaning="A container cannot be created yet; it is tried again for a while, then the run fails.",
    todo="Create the Secret, ConfigMap or volume that the message names, or correct the template.",
)
WAITING_FOR_CAPACITY = _outcome(
    "WaitingForCapacity",
    "Pending",
    "Reconciling",
    "Normal",
    "waitingCapacity",
    "{waiting} of {total} pods have no node; clocks stand still, no budget is spent. {why}",
    meaning="Pods have no node, or cannot be created; why is told in the cluster's own words. No budget is spent.",
    todo="Nothing if nodes will come; else free or add nodes, or correct nodeSelector, tolerations or requests.",
)
QUEUED = _outcome(
    "Queued",
    "Queued",
    "Reconciling",
    "Normal",
    "waitingCapacity",
    "The queue holds job {job} back; clocks stand still.",
    meaning="A queue (Kueue) has not admitted the job yet.",
    todo="Nothing; the job's Workload says what it waits for. A queue name that does not exist waits for ever.",
)
PREEMPTED = _outcome(
    "Preempted",
    "Queued",
    "Reconciling",
    "Normal",
    "waitingCapacity",
    "The queue took the nodes of job {job} back; readmitted, the same attempt goes on from its newest checkpoint.",
    meaning="A queue took the nodes back for other work; the same attempt goes on when it is readmitted.",
    todo="Nothing, or raise the run's priority class.",
)
FAILURE_SETTLING = _outcome(
    "FailureSettling",
    "Running",
    "Reconciling",
    None,
    "detecting",
    "A pod of attempt {attempt} failed; the others get a moment to say why.",
    meaning="A pod failed; the others get a few seconds to say more, so that the cause is not an echo.",
    todo="Nothing.",
)
STOPPING = _outcome(
    "Stopping",
    "Stopping",
    "Reconciling",
    "Normal",
    "stopping",
    "Attempt {attempt} saves and stops: {why}",
    meaning="The attempt saves and stops: suspended, resized, restarted, moved off a marked node, or out of time.",
    todo="Nothing; it takes at most the grace period and half a minute.",
)

# the end of an attempt, or of the run
ATTEMPT_STOPPED = _outcome(
    "AttemptStopped",
    "Stopping",
    "Reconciling",
    "Normal",
    "recovering",
    "Attempt {attempt} has stopped ({cause}): {why}",
    meaning="The attempt has stopped as wanted; nothing is lost and no budget is spent.",
    todo="Nothing.",
)
RESTARTING = _outcome(
    "Restarting",
    "Restarting",
    "Reconciling",
    "Warning",
    "recovering",
    "Attempt {attempt} ended, {cause}: {evidence} {action}",
    meaning="The attempt failed; its devices are taken back and the next one resumes from the newest valid checkpoint.",
    todo="Nothing for a node fault. For a fault of the program: read the evidence before maxRestarts is spent.",
)
FEWER_WORKERS = _outcome(
    "FewerWorkers",
    "Pending",
    "Reconciling",
    "Warning",
    "waitingCapacity",
    "Attempt {attempt} got nodes for {scheduled} of {total} workers; the run goes on with {fewer} "
    "(spec.workers.minReplicas={least}). {why}",
    meaning="Only a part of the workers got nodes, and spec.workers.minReplicas allows to go on with them.",
    todo="Nothing; it trains slower until nodes come. To wait for all workers instead, take minReplicas out.",
)
GANG_INCOMPLETE = _outcome(
    "GangIncomplete",
    "Pending",
    "Reconciling",
    "Normal",
    "waitingCapacity",
    "Attempt {attempt} got only a part of its nodes for {minutes} minutes and gives them back; it asks again at {at}.",
    meaning="Only a part of the workers got nodes, for five minutes; they are given back, so that others can run.",
    todo="Nothing if nodes will come; else lower spec.workers.replicas, or queue the run with Kueue.",
)
STAGE_COMPLETED = _outcome(
    "StageCompleted",
    "Starting",
    "Reconciling",
    "Normal",
    "starting",
    "Stage {stage} is complete{step}; stage {following} is next.",
    meaning="A stage of a run of several reached its target, and the next one is about to start.",
    todo="Nothing.",
)
SUCCEEDED = _outcome(
    "Succeeded",
    "Succeeded",
    "Ready",
    "Normal",
    "finished",
    "The run reached its target{step}.",
    meaning="The target step is reached and the final checkpoint is durable.",
    todo="Nothing; our trainer's result is in `export/` under the checkpoint path.",
)
FAILED = _outcome(
    "Failed",
    "Failed",
    "Stalled",
    "Warning",
    "finished",
    "Attempt {attempt} ended the run, {cause}: {evidence} {action}",
    meaning="The run has ended without its result: the restarts are spent, or no restart can help.",
    todo="Read cause, evidence and advice in the message ([causes](rules.md)); mend it, and apply it under a new name.",
)
DELETED = _outcome(
    "Deleted",
    "Terminating",
    "Reconciling",
    None,
    "stopping",
    "The run is deleted; its pods save and stop by themselves.",
    meaning="The run is being deleted; its pods save by themselves, checkpoints stay.",
    todo="Nothing.",
)
EXPIRED = _outcome(
    "Expired",
    "Terminating",
    "Reconciling",
    None,
    "finished",
    "ttlSecondsAfterFinished is over; the run is deleted.",
    meaning="The finished run is older than ttlSecondsAfterFinished.",
    todo="Nothing; checkpoints stay.",
)
