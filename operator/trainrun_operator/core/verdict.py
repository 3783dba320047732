"""What an attempt's end means, from termination messages and pod facts; job conditions only say that it ended.

Precedence over all pods of an attempt: a contract code, then what the platform did to a pod, then a stop, then
program errors; among equals the earliest. What happens after the first failure is mostly its echo.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from trainrun_api.contract import CAUSE_OF_EXIT, PEER_LOST, ExitCode, TerminationMessage

from trainrun_operator.core.observed import PodFacts, Terminated

Confidence = Literal["Certain", "Likely", "Unknown"]

CAUSE_OF_SIGNAL = {6: "Aborted", 9: "Killed", 11: "SegmentationFault", 15: "Terminated"}
"""A shell reports 128 + signal; the agent names the signal of a worker."""

CAUSE_OF_SHELL_EXIT = {126: "CommandNotFound", 127: "CommandNotFound"}

CAUSE_OF_DISRUPTION = {
    "PreemptionByScheduler": "Preempted",
    "EvictionByEvictionAPI": "Drained",
    "DeletionByTaintManager": "NodeLost",
    "DeletionByPodGC": "NodeLost",
    "TerminationByKubelet": "Evicted",
}
"""DisruptionTarget reasons of Kubernetes 1.33; an unknown one counts as preemption: somebody wanted the pod gone."""

CAUSE_OF_POD_REASON = {
    "Evicted": "Evicted",
    "Preempting": "Preempted",
    "NodeShutdown": "NodeLost",
    "Terminated": "NodeLost",  # graceful node shutdown
    "NodeLost": "NodeLost",
    "Shutdown": "NodeLost",
    "NodeAffinity": "NodeLost",
}
"""pod.status.reason as kubelet and node controller write it."""

MAY_BE_ECHO = frozenset({"PodDeleted", "Stopped", "Terminated", PEER_LOST})
"""Ends that somebody asked for: a failed job's other pods are deleted by training-operator, a deleted job's by the
garbage collector; or that another pod's end brought about. They explain nothing by themselves."""

_NEVER = float("inf")

_CONTRACT_FAILURES = frozenset(int(c) for c in ExitCode) - {ExitCode.DONE, ExitCode.ERROR, ExitCode.STOPPED}


@dataclass(frozen=True)
class Finding:
    """Why something ended: a cause with its evidence."""

    cause: str
    confidence: Confidence
    evidence: str
    """One sentence with the pod, the code and the message."""
    rank: int = 3
    """Lower explains more."""
    at: datetime | None = None
    node: str | None = None
    step: int | None = None
    exit_code: int | None = None
    fingerprint: str | None = None
    log_tail: str = ""


def is_success(
    pods: Iterable[PodFacts], *, has_job_succeeded: bool, is_training: bool = True
) -> TerminationMessage | None:
    """The message that proves the target reached, or None. Other work than training leaves no checkpoint.

    One member's word is enough: it exits 0 only after all members passed a barrier and the final manifest is
    durable. A program that reports no target succeeds with its job.
    """
    for pod in pods:
        said = pod.terminated.message if pod.terminated else None
        if said is None or said.role != "member" or said.exit_code != ExitCode.DONE:
            continue
        if pod.terminated is not None and pod.terminated.exit_code != 0:
            continue
        if said.target_step is None:
            if has_job_succeeded:
                return said
        elif said.step is not None and said.step >= said.target_step and (said.final_checkpoint or not is_training):
            return said
    return None


def root_cause(pods: Iterable[PodFacts]) -> Finding | None:
    """The finding that explains the failure of the attempt best; None if no pod has failed."""
    pods = tuple(pods)
    found = [(pod, f) for pod in pods if (f := finding(pod)) is not None]
    causes = [f for pod, f in found if f.cause not in MAY_BE_ECHO]
    first = min((_time(f) for f in causes), default=_NEVER)
    indices = [p.index for p in pods if not p.is_departed]
    for pod, f in found:
        was_replaced = pod.is_departed and pod.index in indices  # the job was alive when it went
        came_first = pod.deleted_at is not None and pod.deleted_at.timestamp() < first
        if f.cause in MAY_BE_ECHO and (not causes or was_replaced or came_first):
            causes.append(f)
    return min(causes, key=lambda f: (f.rank, _time(f)), default=None)


def behind(found: Finding, pods: Iterable[PodFacts]) -> Finding:
    """What an echo is the echo of: where the platform takes a pod away, its peers may have stopped with it and be gone
    before its own end is reported, which its kubelet does when the last container and the network are gone."""
    if found.cause not in MAY_BE_ECHO:
        return found
    taken = (_by_platform(pod) for pod in pods if pod.deleted_at is not None and not pod.has_ended)
    return next((f for f in taken if f is not None), found)


def _time(f: Finding) -> float:
    return f.at.timestamp() if f.at else _NEVER


def finding(pod: PodFacts) -> Finding | None:
    """How one pod ended; None while it lives, or when it was a clean part of the whole."""
    if not pod.has_ended:
        return None
    if pod.terminated is None:
        return _without_container_status(pod)
    by_contract = _by_contract(pod, pod.terminated)
    if by_contract is not None:
        return by_contract
    platform = _by_platform(pod)
    if platform is not None:
        return platform
    return _by_exit_code(pod, pod.terminated)


def _without_container_status(pod: PodFacts) -> Finding | None:
    platform = _by_platform(pod)
    if platform is not None:
        return platform
    if pod.phase == "Failed":
        return _make(
            pod, "Unknown", "Unknown", f"failed without a word ({pod.reason or 'no reason'}: {pod.message})", 2
        )
    return _make(pod, "PodDeleted", "Certain", "was deleted by somebody else", 2)


def _by_contract(pod: PodFacts, end: Terminated) -> Finding | None:
    said = end.message
    if said is None or said.exit_code not in _CONTRACT_FAILURES:
        return None
    text = f"exited {said.exit_code} ({CAUSE_OF_EXIT[said.exit_code]}): {said.message}"
    return _make(pod, CAUSE_OF_EXIT[said.exit_code], "Certain", text, 0)


def _by_platform(pod: PodFacts) -> Finding | None:
    """What Kubernetes or the node did to the pod."""
    if pod.reason in CAUSE_OF_POD_REASON:
        return _make(pod, CAUSE_OF_POD_REASON[pod.reason], "Certain", f"{pod.reason}: {pod.message}", 1)
    if pod.disruption:
        cause = CAUSE_OF_DISRUPTION.get(pod.disruption, "Preempted")
        return _make(pod, cause, "Certain", f"was disrupted ({pod.disruption})", 1)
    if pod.terminated is not None and pod.terminated.reason == "OOMKilled":
        return _make(pod, "OOMKilled", "Certain", "was killed for its memory limit (OOMKilled)", 1)
    return None


def _by_exit_code(pod: PodFacts, end: Terminated) -> Finding | None:
    said, code = end.message, end.exit_code
    if said is not None and said.exit_code == ExitCode.STOPPED:
        return _make(pod, "Stopped", "Certain", "was asked to stop and saved (exit 10)", 2)
    if said is not None and said.exit_code == ExitCode.DONE and code == 0:
        if said.target_step is None or (said.step or 0) >= said.target_step:
            return None
        return _make(pod, "EndedEarly", "Certain", f"ended at step {said.step} of {said.target_step}", 3)
    if said is not None and said.cause == PEER_LOST:
        return _make(pod, PEER_LOST, "Likely", f"lost its peers: {said.message}", 4)
    if said is not None and said.signal in CAUSE_OF_SIGNAL:
        return _make(
            pod, CAUSE_OF_SIGNAL[said.signal], "Likely", f"a worker died of signal {said.signal}: {said.message}", 1
        )
    if code - 128 in CAUSE_OF_SIGNAL:
        cause = CAUSE_OF_SIGNAL[code - 128]
        return _make(pod, cause, "Likely", f"exited {code}", 2 if cause == "Terminated" else 1)
    if code in CAUSE_OF_SHELL_EXIT:
        why = said.message if said else "its command cannot be run"
        return _make(pod, CAUSE_OF_SHELL_EXIT[code], "Certain", f"exited {code}: {why}", 1)
    if said is None and code == 0:
        return _make(pod, "Unexplained", "Unknown", "exited 0 without a termination message", 3)
    text = f"exited {code}: {said.message}" if said else f"exited {code} without a termination message"
    return _make(pod, "ProgramError", "Certain" if said else "Likely", text, 3)


def _make(pod: PodFacts, cause: str, confidence: Confidence, text: str, rank: int) -> Finding:
    end = pod.terminated
    said = end.message if end else None
    return Finding(
        cause=cause,
        confidence=confidence,
        evidence=f"Pod {pod.name} {text}".rstrip(": ").rstrip() + ".",
        rank=rank,
        at=end.finished_at if end else None,
        node=pod.node,
        step=said.step if said else None,
        exit_code=said.exit_code if said else (end.exit_code if end else None),
        fingerprint=said.fingerprint if said else None,
        log_tail=said.log_tail if said else "",
    )
