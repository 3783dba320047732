"""From what is left of a pod to its termination message. Pure: facts in, message out."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional

from trainrun_api.contract import CAUSE_OF_EXIT, PEER_LOST, ExitCode, Outcome, TerminationMessage, most_telling

from trainrun_trainer.agent.tail import redact

PROGRAM_ERROR = CAUSE_OF_EXIT[ExitCode.ERROR]


@dataclass(frozen=True)
class Stop:
    """A stop request and how it went."""

    reason: str
    exit_code: int
    killed_after_seconds: Optional[float] = None  # the tree was killed, since the grace period was nearly over


@dataclass(frozen=True)
class End:
    """What the agent knows when nothing of its tree is left."""

    returncode: Optional[int]  # of the launcher or command; minus the signal; None: it was never tried
    result: Optional[Mapping[str, Any]]  # the launcher's last word
    progress: Mapping[str, Any]  # contract.Progress of this pod
    stop: Optional[Stop]
    is_own_launcher: bool
    refusal: Optional[str] = None  # why nothing was started
    monotonic: float = 0.0


def verdict(end: End) -> Dict[str, Any]:
    """Fields of the termination message: exit code, cause, sentence, steps and checkpoints."""
    if end.refusal is not None:
        return _fields(end, end.returncode or ExitCode.ERROR, end.refusal)
    if end.stop is not None and end.stop.killed_after_seconds is not None:
        return _fields(end, end.stop.exit_code, _overrun(end, end.stop))
    if end.stop is not None and end.returncode is None:
        return _fields(end, end.stop.exit_code, "%s before anything was started" % end.stop.reason)
    if not end.is_own_launcher:
        return _command(end)
    result = end.result or {}
    outcomes = [Outcome.from_dict(o) for o in result.get("outcomes", ())]
    failures = _in_order(result.get("failures", ()))
    if end.stop is not None and not outcomes and all(f.get("collateral") for f in failures):
        return _fields(end, end.stop.exit_code, "%s before a worker had anything to save" % end.stop.reason)
    if not outcomes and not failures:
        return _launcher_died(end)
    # outcomes first: most_telling prefers them anyway, and failures are already in the order of time
    code = most_telling([o.exit_code for o in outcomes] + [int(ExitCode.ERROR)] * len(failures))
    for outcome in outcomes:
        if outcome.exit_code == code:
            return _from_outcome(end, outcome)
    return _from_failure(end, failures[0])


def _in_order(failures: Any) -> List[Dict[str, Any]]:
    """Where it began comes first: what only lost its peer comes after, then the order of time."""
    return sorted(failures, key=lambda f: (bool(f.get("collateral")), f.get("failed_monotonic", 0.0)))


def _fields(end: End, code: int, message: str, **more: Any) -> Dict[str, Any]:
    durable = end.progress.get("durable_checkpoint")
    return {
        "exit_code": int(code),
        "cause": CAUSE_OF_EXIT.get(code, PROGRAM_ERROR),
        "message": message,
        "step": end.progress.get("step"),
        "target_step": end.progress.get("total_steps"),
        "loss": end.progress.get("loss"),
        "tokens": end.progress.get("tokens"),
        "durable_checkpoint": durable,
        "inplace_restarts": end.progress.get("inplace_restarts", 0),
        "seconds_by_class": end.progress.get("seconds_by_class") or {},
        **more,
    }


def _from_outcome(end: End, outcome: Outcome) -> Dict[str, Any]:
    fields = _fields(end, outcome.exit_code, outcome.message)
    told = {
        "cause": outcome.cause or fields["cause"],
        "step": outcome.step,
        "target_step": outcome.target_step,
        "final_checkpoint": outcome.final_checkpoint,
        "durable_checkpoint": outcome.durable_checkpoint,
        "fingerprint": outcome.fingerprint,
        "seconds_by_class": outcome.seconds_by_class or None,
    }
    fields.update({name: value for name, value in told.items() if value is not None})
    if fields["step"] != end.progress.get("step"):  # the last record is of another step
        fields.update(loss=None, tokens=None)
    return fields


def _from_failure(end: End, failure: Mapping[str, Any]) -> Dict[str, Any]:
    age = end.monotonic - failure["failed_monotonic"] if failure.get("failed_monotonic") is not None else None
    return _fields(
        end,
        ExitCode.ERROR,
        failure.get("message") or "a worker died",
        cause=PEER_LOST if failure.get("collateral") else PROGRAM_ERROR,
        fingerprint=failure.get("fingerprint"),
        signal=failure.get("signal"),
        failed_at_age_seconds=None if age is None else round(max(0.0, age), 3),
    )


def _launcher_died(end: End) -> Dict[str, Any]:
    number = -end.returncode if end.returncode is not None and end.returncode < 0 else None
    how = "was killed by %s" % signal_name(number) if number else "ended with exit code %s" % end.returncode
    return _fields(
        end,
        ExitCode.ERROR,
        "the launcher %s and left no result; see the log's tail" % how,
        signal=number,
        failed_at_age_seconds=0.0,
    )


def _command(end: End) -> Dict[str, Any]:
    """A user's own command: its exit code passes through; it means the contract only if it reported progress."""
    returncode = end.returncode if end.returncode is not None else int(ExitCode.ERROR)
    if returncode < 0:
        message = "the command was killed by %s" % signal_name(-returncode)
        if end.stop is not None:  # the signal that we passed on to it
            cause, message = CAUSE_OF_EXIT[end.stop.exit_code], "%s; %s" % (end.stop.reason, message)
            return _fields(end, 128 - returncode, message, cause=cause, signal=-returncode)
        return _fields(end, 128 - returncode, message, signal=-returncode, failed_at_age_seconds=0.0)
    if returncode == 0:
        return _fields(end, 0, "the command ended with exit code 0")
    has_reported = bool(end.progress.get("workers"))
    cause = CAUSE_OF_EXIT.get(returncode, PROGRAM_ERROR) if has_reported else PROGRAM_ERROR
    message = "the command ended with exit code %d; see the log's tail" % returncode
    return _fields(end, returncode, message, cause=cause, failed_at_age_seconds=0.0)


def _overrun(end: End, stop: Stop) -> str:
    durable = (end.progress.get("durable_checkpoint") or {}).get("step")
    step = end.progress.get("step")
    kept = "no checkpoint is durable" if durable is None else "the newest durable checkpoint is step %s" % durable
    return (
        "%s, but nothing was saved within %.0f s and the workers were killed at step %s; %s; "
        "a longer terminationGracePeriodSeconds gives a save more time"
        % (stop.reason, stop.killed_after_seconds or 0.0, "unknown" if step is None else step, kept)
    )


def signal_name(number: int) -> str:
    """SIGKILL rather than 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return "signal %d" % number


def message_of(end: End, identity: Mapping[str, Any], log_tail: str) -> TerminationMessage:
    """The whole termination message; `identity` is run, attempt, role and pod_index."""
    fields = verdict(end)
    fields["message"] = redact(fields["message"])  # an exception's text may quote what it was given
    keeps_tail = fields["exit_code"] not in (ExitCode.DONE, ExitCode.STOPPED, ExitCode.TIME_LIMIT)
    return TerminationMessage(**identity, **fields, log_tail=log_tail if keeps_tail else "")
