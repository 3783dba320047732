"""From what is left of a pod to its message: every way of ending, as pure facts."""

from __future__ import annotations

from typing import Any

import pytest
from trainrun_api.contract import PEER_LOST, ExitCode
from trainrun_trainer.agent.ending import End, Stop, message_of, verdict

PROGRESS = {"step": 7, "total_steps": 9, "durable_checkpoint": {"step": 5, "claim": 1}, "inplace_restarts": 1}
KILLED = {"rank": 1, "message": "rank 1 was killed by SIGKILL", "signal": 9, "failed_monotonic": 90.0}
ECHO = {"rank": 0, "message": "rank 0 raised RuntimeError", "collateral": True, "failed_monotonic": 80.0}
SAVED = {"exit_code": 10, "cause": "Stopped", "message": "saved", "step": 8, "final_checkpoint": {"step": 8}}
OOM = {"exit_code": 22, "cause": "DeviceOutOfMemory", "message": "too large", "step": 7}
ASKED = Stop("stopped on request", 10)


def end(**changes: Any) -> End:
    """An end of our own launcher, whose tree is gone."""
    facts: dict[str, Any] = {
        "returncode": 0, "result": None, "progress": PROGRESS, "stop": None, "is_own_launcher": True,
        "monotonic": 100.0,
    }  # fmt: skip
    return End(**{**facts, **changes})


def result(*outcomes: dict[str, Any], failures: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """The launcher's last word."""
    return {"outcomes": list(outcomes), "failures": list(failures)}


@pytest.mark.parametrize(("step", "measured"), [(7, (2.5, 700)), (8, (None, None))], ids=["its record", "a later step"])
def test_loss_and_tokens_are_those_of_the_step(step: int, measured: tuple[float | None, int | None]) -> None:
    """The last record may be of an earlier step than the outcome."""
    left = end(result=result({**SAVED, "step": step}), progress={**PROGRESS, "loss": 2.5, "tokens": 700})
    fields = verdict(left)
    assert (fields["loss"], fields["tokens"]) == measured


@pytest.mark.parametrize(
    ("left", "code", "cause", "words"),
    [
        (end(result=result(SAVED)), 10, "Stopped", "saved"),
        (end(result=result(SAVED, OOM)), 10, "Stopped", "saved"),
        (end(result=result(OOM, failures=(KILLED,))), 22, "DeviceOutOfMemory", "too large"),
        (end(result=result(failures=(ECHO, KILLED))), 1, "ProgramError", "rank 1 was killed by SIGKILL"),
        (end(result=result(failures=(ECHO,))), 1, PEER_LOST, "rank 0 raised RuntimeError"),
        (end(result=result(failures=(ECHO,)), stop=ASKED), 10, "Stopped", "before a worker had anything to save"),
        (end(result=result(failures=(KILLED,)), stop=ASKED), 1, "ProgramError", "rank 1 was killed"),
        (end(returncode=-9), 1, "ProgramError", "the launcher was killed by SIGKILL and left no result"),
        (end(returncode=3), 1, "ProgramError", "the launcher ended with exit code 3"),
        (end(returncode=None, stop=ASKED), 10, "Stopped", "before anything was started"),
        (end(returncode=None, refusal="port 1 is in use"), 1, "ProgramError", "port 1 is in use"),
        (end(stop=Stop("the time limit of 60 s is reached", 11, 25.0)), 11, "TimeLimit", "killed at step 7"),
        (end(is_own_launcher=False, returncode=0), 0, "Done", "exit code 0"),
        (end(is_own_launcher=False, returncode=-15, stop=ASKED), 143, "Stopped", "killed by SIGTERM"),
        (end(is_own_launcher=False, returncode=-11), 139, "ProgramError", "killed by SIGSEGV"),
    ],
    ids=[
        "outcome", "outcomes-in-order", "contract-code-before-crash", "cause-before-echo", "only-an-echo",
        "stop-with-echoes", "crash-while-stopping", "launcher-killed", "launcher-failed", "stop-before-start",
        "refused", "overrun", "command-done", "command-stopped", "command-crashed",
    ],
)  # fmt: skip
def test_each_end_has_its_code_cause_and_sentence(left: End, code: int, cause: str, words: str) -> None:
    """One table of all of them."""
    fields = verdict(left)
    assert (fields["exit_code"], fields["cause"]) == (code, cause)
    assert words in fields["message"]


def test_a_crash_carries_step_checkpoint_and_age() -> None:
    """What the operator needs to order the pods' words and to say what is lost."""
    fields = verdict(end(result=result(failures=({**KILLED, "fingerprint": "SIGKILL"},))))
    assert (fields["step"], fields["target_step"], fields["durable_checkpoint"]) == (7, 9, {"step": 5, "claim": 1})
    assert (fields["failed_at_age_seconds"], fields["signal"], fields["fingerprint"]) == (10.0, 9, "SIGKILL")
    assert fields["inplace_restarts"] == 1


def test_an_overrun_names_what_is_durable_and_what_would_help() -> None:
    """The kill is ours, not the kubelet's, so that this can be said."""
    fields = verdict(end(stop=Stop("stopped on request", 10, 115.0)))
    assert "within 115 s" in fields["message"]
    assert "the newest durable checkpoint is step 5" in fields["message"]
    nothing = verdict(end(stop=Stop("stopped on request", 10, 115.0), progress={}))
    assert "killed at step unknown; no checkpoint is durable" in nothing["message"]


@pytest.mark.parametrize(("code", "keeps"), [(0, False), (10, False), (11, False), (1, True), (31, True)])
def test_the_logs_tail_is_evidence_of_failures_only(code: int, keeps: bool) -> None:
    """A good end needs no log, and its message stays small."""
    said = {"exit_code": code, "cause": "x", "message": "no access with S3_SECRET=abc"}
    message = message_of(end(result=result(said)), {"run": "r", "attempt": 0, "role": "member", "pod_index": 0}, "tail")
    assert (message.log_tail == "tail") is keeps
    assert message.exit_code == ExitCode(code)
    assert message.message == "no access with S3_SECRET=***"
