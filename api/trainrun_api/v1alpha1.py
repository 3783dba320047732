"""TrainingRun v1alpha1: what a user asks for (spec) and what the operator remembers (status).

Descriptions become the CRD's text. Spec models refuse unknown fields; status models keep them, because
a neighbouring version may have written them. Cross-field rules live in `rules/`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from trainrun_api.base import LenientCamel, StrictCamel
from trainrun_api.pod_template import PodTemplate, ShortText
from trainrun_api.train_config import TrainConfig

NAME_LIMIT = 45
"""Longest run name: '<run>-a<attempt>-worker-<index>' must stay a DNS label of 63 characters."""

Accelerator = Literal["cuda", "neuron", "cpu"]


class WorkersSpec(StrictCamel):
    """Shape of the worker group."""

    replicas: int = Field(1, le=8192, description="Worker pods, one per node; at least 1 (a rule says so).")
    min_replicas: int | None = Field(
        None,
        ge=1,
        le=8192,
        description="The run goes on with as few workers as this when no more can be had, with the same global batch, "
        "and takes all replicas again when nodes return; absent: it waits for all.",
    )
    spares: int = Field(
        0,
        ge=0,
        le=64,
        description="Extra pods that wait warm, with everything imported, and take the place of a lost worker within "
        "seconds, without a new attempt (docs/spares.md). Each takes a node.",
    )
    devices_per_worker: int = Field(1, ge=1, le=64, description="Devices, and so worker processes, per pod.")
    accelerator: Accelerator = Field("cuda", description="Device kind: resources, devices and environment follow.")
    instance_type: str | None = Field(
        None, max_length=64, description="For example ml.p4d.24xlarge: node selector, EFA interfaces, sanity checks."
    )
    template: PodTemplate = Field(
        default_factory=PodTemplate,
        description="Partial PodTemplateSpec, merged by name, last (volumes, service account, tolerations ...).",
    )


class StageWorkers(StrictCamel):
    """What a stage changes of spec.workers; the pod template is the run's."""

    replicas: int | None = Field(None, ge=1, le=8192, description="Worker pods of this stage.")
    min_replicas: int | None = Field(None, ge=1, le=8192, description="As spec.workers.minReplicas.")
    spares: int | None = Field(None, ge=0, le=64, description="As spec.workers.spares.")
    devices_per_worker: int | None = Field(None, ge=1, le=64, description="As spec.workers.devicesPerWorker.")
    accelerator: Accelerator | None = Field(None, description="As spec.workers.accelerator.")
    instance_type: str | None = Field(None, max_length=64, description="As spec.workers.instanceType.")


StageKind = Literal["prepare", "precompile", "train", "evaluate", "consolidate", "merge", "report"]


class StageSpec(StrictCamel):
    """One step of a longer life cycle (docs/stages.md)."""

    name: str = Field(
        min_length=1, max_length=40, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", description="Unique name."
    )
    kind: StageKind = Field(description="What the stage does; precompile comes with a later version.")
    config: dict[str, Any] = Field(
        default_factory=dict,
        description="prepare and train: laid over spec.config; other kinds: their own configuration. stage:NAME in it "
        "stands for the result of an earlier stage.",
    )
    workers: StageWorkers = Field(
        default_factory=StageWorkers, description="Laid over spec.workers; other kinds than train run as one process."
    )


class CheckpointSpec(StrictCamel):
    """Where checkpoints go, how often, and how many stay."""

    path: str = Field(
        min_length=2,
        max_length=1024,
        description="Absolute path on a volume that all workers share, file:///..., or s3://bucket/prefix "
        "(docs/s3.md). In local mode a folder of the run's workdir stands for it.",
    )
    interval: int | ShortText = Field(
        "auto",
        description="auto (5 minutes or 50 steps, whichever is first), a number of steps, or a duration: 90s, 10m, 1h.",
    )
    keep_last: int = Field(
        3, ge=2, le=1000, description="Newest checkpoints that stay; at least 2, so that one can be bad."
    )
    keep_every_steps: int | None = Field(
        None, ge=1, le=100_000_000, description="Multiples of this step stay for ever."
    )


class ResumeSpec(StrictCamel):
    """Where the first step comes from. Immutable for the life of a run."""

    from_: Literal["Latest", "Never", "Step", "Run"] = Field(
        "Latest",
        alias="from",
        description="Latest valid checkpoint, Never (refuse old ones), a Step, or another Run's result: its exported "
        "model and tokenizer, at step 0 (docs/methods.md).",
    )
    step: int | None = Field(None, ge=0, le=100_000_000, description="With from: Step.")
    run: str | None = Field(
        None,
        min_length=1,
        max_length=NAME_LIMIT,
        description="With from: Run: the name of a run in this namespace, waited for until it has succeeded.",
    )


class FailureRule(StrictCamel):
    """First match wins; every condition that is given must hold."""

    name: str = Field(min_length=1, max_length=63, description="Shown in status and events.")
    on_causes: list[ShortText] = Field(
        default_factory=list, max_length=32, description="Causes, as in status.failure.cause."
    )
    on_exit_codes: list[Annotated[int, Field(ge=0, le=255)]] = Field(
        default_factory=list, max_length=32, description="Exit codes of the failed worker."
    )
    on_log_pattern: str | None = Field(None, max_length=256, description="Regular expression on the log tail.")
    action: Literal["FailRun", "Restart", "RestartElsewhere", "RestartIgnoringBudget"] = Field(
        description="What to do then."
    )

    @field_validator("on_log_pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        """The API server cannot check this; the operator would, and call the spec unworkable."""
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"is not a regular expression ({error}); correct or remove it") from error
        return pattern


class FailurePolicySpec(StrictCamel):
    """What failures lead to, in JobSet's words."""

    max_restarts: int = Field(
        10, ge=0, le=10000, description="Restarts after failures of the program; node faults and preemption are free."
    )
    rules: list[FailureRule] = Field(
        default_factory=list, max_length=32, description="Ordered rules before the defaults."
    )


class HealthSpec(StrictCamel):
    """How long silence may last, and what may be done to nodes."""

    startup_timeout_seconds: int = Field(
        1800, ge=10, le=86400, description="From all pods scheduled to the first step."
    )
    stall_timeout_seconds: int | ShortText = Field(
        "auto",
        description="auto (20 x the slowest of the last 50 steps, 10 s to 30 min) or seconds; "
        "the phase's own allowance is added.",
    )
    node_repair: Literal["Never", "Reboot", "Replace"] = Field(
        "Never", description="May the operator ask HyperPod to repair a node; only Never works in this version."
    )


class TrainingRunSpec(StrictCamel):
    """What the user wants."""

    image: str = Field(min_length=1, max_length=512, description="Trainer image, or the user's own with command.")
    command: list[Annotated[str, StringConstraints(max_length=4096)]] = Field(
        default_factory=list, max_length=64, description="A user's own program, run under torchrun; empty: our trainer."
    )
    workers: WorkersSpec = Field(default_factory=WorkersSpec, description="Shape of the worker group.")
    config: TrainConfig | None = Field(None, description="Training configuration; required without command.")
    stages: list[StageSpec] = Field(
        default_factory=list,
        max_length=32,
        description="Stages, one after another; empty: one train stage. Immutable for the life of a run.",
    )
    checkpoint: CheckpointSpec = Field(description="Where checkpoints go.")
    resume: ResumeSpec = Field(default_factory=ResumeSpec, description="Where the first step comes from.")
    failure_policy: FailurePolicySpec = Field(default_factory=FailurePolicySpec, description="What failures lead to.")
    health: HealthSpec = Field(default_factory=HealthSpec, description="Limits of silence.")
    max_attempt_seconds: int | None = Field(
        None, ge=60, le=31_536_000, description="Save and start a new attempt after this long (job chaining)."
    )
    termination_grace_period_seconds: int = Field(120, ge=10, le=3600, description="Time to save after a stop request.")
    suspend: bool = Field(False, description="Save, stop and give the nodes back; false again resumes.")
    restart_token: str = Field("", max_length=256, description="Change it to save, stop and start a new attempt.")
    ttl_seconds_after_finished: int | None = Field(
        None, ge=0, le=31_536_000, description="Delete the run this long after its end."
    )


class Condition(LenientCamel):
    """A Kubernetes condition."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    last_transition_time: str = ""
    observed_generation: int = 0


class ProgressStatus(LenientCamel):
    """Last progress, written at most once a minute."""

    step: int | None = None
    total_steps: int | None = None
    tokens: int | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    updated_at: str | None = None


class CheckpointStatus(LenientCamel):
    """Newest durable checkpoint that a trainer reported."""

    step: int | None = None
    path: str | None = None
    committed_at: str | None = None
    size_bytes: int | None = None


class StopStatus(LenientCamel):
    """A save stop that was decided and may still be under way."""

    reason: str
    message: str = ""
    requested_at: str


class AttemptStatus(LenientCamel):
    """One execution of the run."""

    number: int
    stage: str = Field("", description="Of a run of several stages.")
    job: str = ""
    job_uid: str | None = Field(None, alias="jobUID")
    generation: int = 0
    replicas: int | None = Field(None, description="Workers that it runs on.")
    wanted_replicas: int | None = Field(
        None, description="spec.workers.replicas when it started; absent unless it runs on fewer."
    )
    spares: int = Field(0, description="Warm pods beside them when it started.")
    replaced: int = Field(0, description="Lost pods whose seats were taken by spares, or that were spares themselves.")
    replaced_pods: list[str] = Field(
        default_factory=list, description="Their uids, while the attempt is open: what becomes of them is no news."
    )
    nodes_for_all: int | None = Field(
        None, description="On fewer workers: good nodes that must be there before it is stopped to take all again."
    )
    scheduled_replicas: int | None = Field(
        None, description="Workers that had nodes when it ended because the others got none."
    )
    started_at: str | None = None
    scheduled_at: str | None = None
    first_step_at: str | None = None
    ended_at: str | None = None
    start_step: int | None = None
    end_step: int | None = None
    inplace_restarts: int = 0
    cause: str | None = None
    action: str | None = None
    message: str | None = None
    image: str = Field("", description="The image that ran, with the digest that the node resolved it to.")
    nodes: list[str] = Field(default_factory=list)
    excluded: list[str] = Field(default_factory=list, description="Nodes that this attempt may not use.")
    restart_token: str = ""
    is_queued: bool = Field(False, description="A queue (Kueue) holds the job back; clocks stand still.")
    last_queued_at: str | None = Field(
        None, description="Last time a queue held the job back; older pods do not count."
    )
    stop: StopStatus | None = None


class FailureStatus(LenientCamel):
    """The last verdict."""

    cause: str
    confidence: Literal["Certain", "Likely", "Unknown"] = "Unknown"
    evidence: list[str] = Field(default_factory=list)
    action: str = ""


class NodesStatus(LenientCamel):
    """Nodes that this run avoids."""

    excluded: list[str] = Field(default_factory=list)


class GoodputStatus(LenientCamel):
    """Wall seconds of the run, partitioned; they add up exactly."""

    ettr: float | None = None
    seconds_by_class: dict[str, float] = Field(default_factory=dict)
    current_class: str | None = Field(None, description="What the seconds since accountedUntil are booked on.")
    accounted_until: str | None = None


class ParentStatus(LenientCamel):
    """The run whose result this one starts from, as it was when the first attempt began."""

    run: str
    uid: str
    path: str = Field(description="Its checkpoint.path.")
    stage: str | None = Field(None, description="Of a chain: its last stage that makes a model.")


class StageStatus(LenientCamel):
    """A stage that is complete."""

    name: str
    kind: str = ""
    attempt: int = Field(description="Number of the attempt that completed it.")
    step: int | None = None
    loss: float | None = None
    ended_at: str = ""


class TrainingRunStatus(LenientCamel):
    """The only memory of a run."""

    observed_generation: int = 0
    phase: str = ""
    stage: str = Field("", description="The stage that the newest or the next attempt is of.")
    stages: list[StageStatus] = Field(default_factory=list, description="Complete ones of a run of several stages.")
    attempt: int | None = Field(None, description="Number of the newest attempt, 0-based.")
    restarts: int = Field(0, description="Restarts that counted towards failurePolicy.maxRestarts.")
    result: Literal["Succeeded", "Failed"] | None = Field(None, description="Set once, when the run is over.")
    ended_at: str | None = None
    next_attempt_at: str | None = Field(None, description="Back-off: no attempt starts before.")
    conditions: list[Condition] = Field(default_factory=list)
    progress: ProgressStatus = Field(default_factory=ProgressStatus)
    checkpoint: CheckpointStatus = Field(default_factory=CheckpointStatus)
    attempts: list[AttemptStatus] = Field(default_factory=list, description="The last 20.")
    parent: ParentStatus | None = Field(None, description="With resume.from: Run.")
    failure: FailureStatus | None = None
    nodes: NodesStatus = Field(default_factory=NodesStatus)
    replicas: int | None = Field(None, description="Worker pods of the newest attempt, for the scale subresource.")
    selector: str | None = Field(None, description="Label selector of the worker pods, for the scale subresource.")
    ledgers: dict[str, Any] = Field(default_factory=dict, description="Restart budgets by cause fingerprint.")
    goodput: GoodputStatus = Field(default_factory=GoodputStatus)


class TrainingRun(StrictCamel):
    """A long training job that survives its hardware."""

    api_version: Literal["trainrun.dev/v1alpha1"] = "trainrun.dev/v1alpha1"
    kind: Literal["TrainingRun"] = "TrainingRun"
    metadata: dict[str, Any] = Field(default_factory=dict)
    spec: TrainingRunSpec
    status: TrainingRunStatus | None = None
