"""What the operator, the agent and the trainer promise each other, on one page.

Standard library only and Python 3.9: the agent ships this module into images that are not ours.
Codes and names are append-only; a reader ignores fields it does not know and understands its own
SCHEMA and the one before it. Nothing here does I/O.
"""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Dict, List, Mapping, Optional, Tuple, Type, TypeVar

SCHEMA = 1
"""Version of the progress record and of the termination message."""

UNDERSTOOD_SCHEMAS = (SCHEMA - 1, SCHEMA)
"""Own and previous version, so that upgrade and rollback work in mid-run."""

GROUP = "trainrun.dev"
AGENT_PORT = 8471
"""Where a pod's agent serves `GET /progress` and `GET /metrics`."""
RENDEZVOUS_PORT = 23456
"""PyTorchJob's default port: the c10d store of worker 0."""
TERMINATION_MESSAGE_LIMIT_BYTES = 4096
"""The kubelet keeps no more than this of a container's termination message."""
TERMINATION_LOG = "/dev/termination-log"


class ExitCode(enum.IntEnum):
    """How a trainer ends. They mean the contract only beside a termination message of our schema."""

    DONE = 0
    ERROR = 1
    STOPPED = 10
    TIME_LIMIT = 11
    BAD_CONFIG = 20
    BAD_DATA = 21
    DEVICE_OUT_OF_MEMORY = 22
    DEVICE_SUSPECT = 30
    NUMERICAL_FAULT = 31
    NO_CHECKPOINT = 40
    STORAGE_REFUSED = 41


CAUSE_OF_EXIT: Mapping[int, str] = {
    ExitCode.DONE: "Done",
    ExitCode.ERROR: "ProgramError",
    ExitCode.STOPPED: "Stopped",
    ExitCode.TIME_LIMIT: "TimeLimit",
    ExitCode.BAD_CONFIG: "BadConfig",
    ExitCode.BAD_DATA: "BadData",
    ExitCode.DEVICE_OUT_OF_MEMORY: "DeviceOutOfMemory",
    ExitCode.DEVICE_SUSPECT: "DeviceSuspect",
    ExitCode.NUMERICAL_FAULT: "NumericalFault",
    ExitCode.NO_CHECKPOINT: "NoUsableCheckpoint",
    ExitCode.STORAGE_REFUSED: "StorageRefused",
}

PEER_LOST = "PeerLost"
"""Cause beside exit code 1 of a pod that only lost its peers: never what began it."""


class Env:
    """Environment of a worker pod. The operator (or local mode) sets it; users may not."""

    RUN = "TRAINRUN_RUN"
    RUN_UID = "TRAINRUN_RUN_UID"
    ATTEMPT = "TRAINRUN_ATTEMPT"
    STAGE = "TRAINRUN_STAGE"
    STAGE_KIND = "TRAINRUN_STAGE_KIND"  # absent: the only stage of its run, which trains in checkpoint.path itself
    CONFIG = "TRAINRUN_CONFIG"  # TrainConfig, or another kind of stage's configuration, as JSON
    RESUME = "TRAINRUN_RESUME"  # spec.resume as JSON
    CHECKPOINT = "TRAINRUN_CHECKPOINT"  # spec.checkpoint (cadence, retention) as JSON
    CHECKPOINT_PATH = "TRAINRUN_CHECKPOINT_PATH"
    ACCELERATOR = "TRAINRUN_ACCELERATOR"  # cuda | neuron | cpu
    REPLICAS = "TRAINRUN_REPLICAS"  # pods that take part (members, without spares)
    SPARES = "TRAINRUN_SPARES"  # pods beyond those, which wait warm; absent: none
    POD_INDEX = "TRAINRUN_POD_INDEX"  # 0-based; from the pod's replica-index label
    PEERS = "TRAINRUN_PEERS"  # "host:port,host:port", agents in pod-index order
    AGENT_HOST = "TRAINRUN_AGENT_HOST"  # address that the agent listens on; default: every one, IPv4 and IPv6
    AGENT_PORT = "TRAINRUN_AGENT_PORT"
    RENDEZVOUS_WAIT = "TRAINRUN_RENDEZVOUS_WAIT"  # seconds the agent waits for the rendezvous name; default 300
    PROGRESS_DIR = "TRAINRUN_PROGRESS_DIR"
    TERMINATION_LOG = "TRAINRUN_TERMINATION_LOG"  # local mode: file that stands for /dev/termination-log
    DEADLINE = "TRAINRUN_DEADLINE"  # seconds after the agent's start: save, exit 11 (maxAttemptSeconds)
    GRACE_SECONDS = "TRAINRUN_GRACE_SECONDS"
    FAULTS = "TRAINRUN_FAULTS"  # local mode only: folder where faults are asked for and answered


class Label:
    """Labels and annotations of the objects that we make."""

    RUN = GROUP + "/run"
    RUN_UID = GROUP + "/run-uid"  # of pods; with the attempt it names one job's pods for ever
    ATTEMPT = GROUP + "/attempt"
    STAGE = GROUP + "/stage"
    ROLE = GROUP + "/role"
    GENERATION = GROUP + "/generation"  # annotation: the spec generation that the attempt runs


class ProgressFile:
    """Names inside TRAINRUN_PROGRESS_DIR; every file is replaced atomically."""

    STOP_REQUEST = "stop.json"  # the agent asks: {"reason": ..., "exit_code": 10 | 11}
    LAUNCHER = "launcher.json"  # the launcher tells: {"state": ..., "generation": ..., "inplace_restarts": ...}
    RESULT = "result.json"  # the launcher's last word: {"outcomes": [...], "failures": [...], ...}

    @staticmethod
    def crash(local_rank: int) -> str:
        """What a worker that raises leaves for its launcher: {"fingerprint", "message", ...}."""
        return "crash%d.json" % local_rank

    @staticmethod
    def rank(local_rank: int) -> str:
        """File that one local rank replaces after each step."""
        return "rank%d.json" % local_rank


class LauncherState:
    """What the launcher of a pod does: the field `state` of launcher.json."""

    IMPORTING = "importing"
    SPARE = "spare"  # waits warm for a seat in the worker group
    RENDEZVOUS = "rendezvous"
    RUNNING = "running"


PHASES = ("starting", "compiling", "training", "checkpointing", "evaluating", "finishing")

PHASE_ALLOWANCE_SECONDS: Mapping[str, float] = {
    "starting": 0.0,  # the startup limit of the run governs it
    "compiling": 3600.0,
    "training": 0.0,
    "checkpointing": 900.0,  # a stuck save is cut after 15 min (DLRover's limit)
    "evaluating": 3600.0,
    "finishing": 1800.0,
}
"""Added to the stall limit while a phase lasts, unless the record says `expected_next_within_seconds`."""


class CheckpointLayout:
    """Names below `checkpoint.path`. A directory without a valid manifest does not exist."""

    CLAIMS = "claims"
    METRICS = "metrics"
    DATA = "data"
    EXPORT = "export"
    STAGES = "stages"
    """Folders of the stages of a run of several, each with its record."""
    STAGE_RECORD = "stage.json"
    MANIFEST = "manifest.json"

    @staticmethod
    def claim(k: int) -> str:
        """Fencing claim number k, created exclusively."""
        return "claims/%d.json" % k

    @staticmethod
    def step_dir(step: int, claim: int) -> str:
        """Folder of the checkpoint that `claim` wrote after `step` optimizer steps."""
        return "step-%d-c%d" % (step, claim)

    @staticmethod
    def parse_step_dir(name: str) -> Optional[Tuple[int, int]]:
        """(step, claim) of a checkpoint folder's name, or None."""
        head, _, tail = name.partition("-c")
        if not head.startswith("step-") or not head[5:].isdigit() or not tail.isdigit():
            return None
        return int(head[5:]), int(tail)

    @staticmethod
    def metrics(claim: int) -> str:
        """One JSON line per step, appended by rank 0 before that step's manifest."""
        return "metrics/c%d.jsonl" % claim

    @staticmethod
    def timeline(claim: int) -> str:
        """Unix times of a worker group's start: processes, rendezvous, load, first step."""
        return "metrics/c%d.timeline.json" % claim


R = TypeVar("R", bound="Record")


@dataclass(frozen=True)
class Record:
    """Base of what is written as JSON: unknown fields are ignored, missing ones take defaults."""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_dict(cls: Type[R], raw: Mapping[str, Any]) -> R:
        """Read a record written by this or a neighbouring version."""
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in raw.items() if k in known})


@dataclass(frozen=True)
class Progress(Record):
    """Answer of `GET /progress`, and content of `rank<k>.json`. Ages, never times to compare.

    In a rank's file `*_age_seconds` are replaced by `*_monotonic` instants of this machine's clock;
    the agent turns them into ages when it is asked.
    """

    schema: int = SCHEMA
    run: str = ""
    attempt: int = 0
    generation: int = 0  # in-place restarts make a new generation of the worker group
    inplace_restarts: int = 0
    stage: str = ""
    phase: str = "starting"
    step: Optional[int] = None  # completed optimizer steps; None: the program does not report
    total_steps: Optional[int] = None
    loss: Optional[float] = None
    tokens: Optional[int] = None  # since step 0 of the run
    tokens_per_second: Optional[float] = None
    step_age_seconds: Optional[float] = None
    slowest_step_seconds: Optional[float] = None  # of the last 50 steps
    expected_next_within_seconds: Optional[float] = None  # allowance of the phase; None: table above
    durable_checkpoint: Optional[Dict[str, Any]] = None  # {step, claim, path, age_seconds, size_bytes, state_digest}
    save_error: Optional[str] = None  # the last save failed; training goes on
    seconds_by_class: Dict[str, float] = field(default_factory=dict)
    workers: List[Dict[str, Any]] = field(default_factory=list)
    """Per worker: {pod_index, local_rank, pid, phase, step, device_activity, power_watts, memory_bytes,
    network_bytes}; what cannot be read is absent."""
    heard: Dict[str, float] = field(default_factory=dict)  # peer pod index -> age of its last answer, seconds


@dataclass(frozen=True)
class TerminationMessage(Record):
    """What a pod leaves behind; the only ground for a verdict on an attempt."""

    schema: int = SCHEMA
    run: str = ""
    attempt: int = 0
    role: str = "member"  # member | spare
    pod_index: int = 0
    exit_code: int = 1
    cause: str = "ProgramError"
    message: str = ""
    step: Optional[int] = None
    target_step: Optional[int] = None  # None: a user's image that reports no target
    loss: Optional[float] = None  # of that step
    tokens: Optional[int] = None  # up to that step
    final_checkpoint: Optional[Dict[str, Any]] = None  # {step, claim, path, state_digest}
    durable_checkpoint: Optional[Dict[str, Any]] = None
    fingerprint: Optional[str] = None  # type and top own frame of an exception
    signal: Optional[int] = None
    failed_at_age_seconds: Optional[float] = None  # age of the first failure when this was written
    inplace_restarts: int = 0
    seconds_by_class: Dict[str, float] = field(default_factory=dict)
    log_tail: str = ""

    def to_bounded_json(self, limit_bytes: int = TERMINATION_MESSAGE_LIMIT_BYTES) -> str:
        """JSON of at most `limit_bytes`: the log tail gives way first, then the message."""
        text = self.to_json()
        excess = len(text.encode()) - limit_bytes
        if excess <= 0:
            return text
        raw = asdict(self)
        for name in ("log_tail", "message"):
            keep = max(0, len(raw[name]) - excess - 16)
            raw[name] = raw[name][-keep:] if keep and name == "log_tail" else raw[name][:keep]
            text = json.dumps(raw, separators=(",", ":"), allow_nan=False)
            excess = len(text.encode()) - limit_bytes
            if excess <= 0:
                return text
        return text


@dataclass(frozen=True)
class Outcome(Record):
    """What a worker process returns to its launcher for every contract code (it does not exit with it)."""

    exit_code: int = 0
    cause: str = "Done"
    message: str = ""
    step: Optional[int] = None
    target_step: Optional[int] = None
    final_checkpoint: Optional[Dict[str, Any]] = None
    durable_checkpoint: Optional[Dict[str, Any]] = None
    fingerprint: Optional[str] = None
    seconds_by_class: Dict[str, float] = field(default_factory=dict)


def most_telling(codes: List[int]) -> int:
    """The one exit code that explains a group's end: a contract code before 1, then the earliest in the list.

    `codes` is in the order in which the failures happened.
    """
    failures = [c for c in codes if c != ExitCode.DONE]
    contract = [c for c in failures if c != ExitCode.ERROR and c in CAUSE_OF_EXIT]
    return (contract or failures or [int(ExitCode.DONE)])[0]
