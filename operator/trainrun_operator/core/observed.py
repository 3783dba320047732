"""What the operator knows at one instant, frozen: the only input of `decide`.

Absent, stale and negative are three different values here: a node that is not listed is healthy, a node that is
listed with `exists=False` is gone, `ready=None` is unknown; an agent without an answer is blind, not dead.
Nothing in this module decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from trainrun_api.contract import Progress, TerminationMessage
from trainrun_api.v1alpha1 import TrainingRunSpec, TrainingRunStatus

REFUSED = "refused"
"""Why an agent is blind whose node is there: it says that nobody listens. One that is lost answers nothing."""


@dataclass(frozen=True)
class RunFacts:
    """The TrainingRun as its object says."""

    namespace: str
    name: str
    uid: str
    generation: int
    created_at: datetime
    is_deleted: bool
    spec: TrainingRunSpec | None
    spec_error: str | None
    """Why `spec` is None: a sentence for the user."""
    status: TrainingRunStatus
    has_queue: bool = False
    """It names a queue (Kueue), which gives it its nodes."""


@dataclass(frozen=True)
class JobFacts:
    """One PyTorchJob that carries the run's label."""

    name: str
    uid: str
    attempt: int
    is_owned: bool
    """Our run's uid is its owner; False: a leftover of a run that had the same name."""
    is_deleting: bool = False
    is_suspended: bool = False
    has_succeeded: bool = False
    has_failed: bool = False
    message: str = ""
    warning: str = ""
    """Why its pods do not appear, in the cluster's own words."""
    started_at: datetime | None = None


@dataclass(frozen=True)
class Terminated:
    """The end of a pod's trainer container."""

    exit_code: int
    reason: str = ""
    finished_at: datetime | None = None
    message: TerminationMessage | None = None
    """The agent's last word, if it is one of a schema that we understand."""
    unknown_schema: int | None = None
    """The schema of a message that we do not understand."""


@dataclass(frozen=True)
class PodFacts:
    """One worker pod, alive or departed."""

    name: str
    uid: str
    index: int
    attempt: int
    is_owned: bool
    job_uid: str | None
    node: str | None
    phase: str
    created_at: datetime
    is_scheduled: bool = True
    scheduled_at: datetime | None = None
    pending_because: str = ""
    """The scheduler's own message while the pod has no node."""
    waiting_reason: str = ""
    """Why the container does not start, for example ImagePullBackOff."""
    waiting_message: str = ""
    image: str = ""
    image_id: str = ""
    """What the runtime resolved that to, with its digest; empty before the container was created."""
    terminated: Terminated | None = None
    reason: str = ""
    """Pod-level reason, for example Evicted."""
    message: str = ""
    disruption: str = ""
    """Reason of the DisruptionTarget condition, for example PreemptionByScheduler."""
    deleted_at: datetime | None = None
    """When somebody asked for its deletion."""
    terminates_by: datetime | None = None
    """deletionTimestamp: when the grace of that deletion is over."""
    is_departed: bool = False
    """The object is gone; this is its last sight."""

    @property
    def has_ended(self) -> bool:
        """It will not run again."""
        return self.terminated is not None or self.is_departed or self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True)
class NodeFacts:
    """A node that deviates from healthy; healthy ones are only counted."""

    name: str
    exists: bool = True
    ready: bool | None = True
    """None: the kubelet's word is missing (Ready=Unknown counts as False)."""
    not_ready_since: datetime | None = None
    ready_since: datetime | None = None
    mark: str = ""
    """What HyperPod says against it: label value or taint, for example UnschedulablePendingReplacement."""
    fault: str = ""
    """Its words for the current fault: evidence for people, no ground for a decision."""
    instance_group: str = ""
    """Where a replacement of the node will turn up, under another name."""
    is_cordoned: bool = False
    is_stale: bool = False
    """Last heard of before an API outage: no ground for a verdict yet."""


@dataclass(frozen=True)
class NodesFacts:
    """The nodes: how many there are, and those that deviate."""

    total: int = 0
    deviating: Mapping[str, NodeFacts] = field(default_factory=dict)


@dataclass(frozen=True)
class AgentFacts:
    """Whether one pod's agent can be heard."""

    heard_at: datetime | None = None
    """Last answer, direct or through a peer."""
    silent_since: datetime | None = None
    """First call that it did not answer after that; None: it answers, or was not asked."""
    blind_because: str = ""
    """REFUSED, timeout, no-route, bad-answer, or what a peer says."""
    ranks: frozenset[int] = frozenset()
    """Ranks of its worker processes, by its last answer; none: a spare, or a program that does not report."""


@dataclass(frozen=True)
class ProgressFacts:
    """The newest record of one attempt, and who answers."""

    attempt: int = -1
    record: Progress | None = None
    received_at: datetime | None = None
    unknown_schema: int | None = None
    agents: Mapping[int, AgentFacts] = field(default_factory=dict)
    """By pod index; an index that is absent has not been asked."""

    @property
    def heard_indices(self) -> frozenset[int]:
        """Agents that answer."""
        return frozenset(i for i, a in self.agents.items() if a.heard_at is not None and a.silent_since is None)

    @property
    def silent_indices(self) -> frozenset[int]:
        """Agents that have not answered since they were last heard."""
        return frozenset(i for i, a in self.agents.items() if a.silent_since is not None)


@dataclass(frozen=True)
class Rival:
    """An older live run that uses the same checkpoint path."""

    namespace: str
    name: str


@dataclass(frozen=True)
class Parent:
    """The run that `spec.resume.run` names, if it exists."""

    name: str
    uid: str
    path: str
    result: str | None
    stage: str | None = None
    """Of a chain: where its result is."""


@dataclass(frozen=True)
class Refusal:
    """The cluster refused the job of an attempt; a person must act."""

    attempt: int
    message: str
    at: datetime


@dataclass(frozen=True)
class Observed:
    """Everything that `decide` may look at."""

    run: RunFacts
    now: datetime
    jobs: tuple[JobFacts, ...] = ()
    pods: tuple[PodFacts, ...] = ()
    nodes: NodesFacts = field(default_factory=NodesFacts)
    progress: ProgressFacts = field(default_factory=ProgressFacts)
    rival: Rival | None = None
    parent: Parent | None = None
    """None: it does not exist, or is not asked for."""
    refusal: Refusal | None = None
