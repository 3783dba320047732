"""What a pod's object tells, and what its trainer would say."""

from __future__ import annotations

import json
from typing import Any

from trainrun_api.contract import SCHEMA, Env, TerminationMessage
from trainrun_operator.cluster import Object


def said(pod: Object, exit_code: int, cause: str, **words: Any) -> str:
    """A termination message of this pod's attempt."""
    message = TerminationMessage(
        schema=SCHEMA,
        run=env(pod)[Env.RUN],
        attempt=attempt(pod),
        pod_index=int(index(pod)),
        exit_code=exit_code,
        cause=cause,
        **words,
    )
    return message.to_bounded_json()


def checkpoint(step: int) -> dict[str, Any]:
    """A durable checkpoint as the trainer tells it."""
    return {"step": step, "claim": 0, "path": f"/checkpoints/x/step-{step}-c0", "state_digest": "0" * 16}


def group_key(pod: Object) -> tuple[str, int]:
    """Members of one attempt share it."""
    return run_uid(pod), attempt(pod)


def run_uid(pod: Object) -> str:
    """The run's uid, as the pod is told."""
    return env(pod)[Env.RUN_UID]


def attempt(pod: Object) -> int:
    """The attempt's number."""
    return int(env(pod)[Env.ATTEMPT])


def index(pod: Object) -> str:
    """The pod's place in its job, as peers are named."""
    return str(pod["metadata"]["labels"]["training.kubeflow.org/replica-index"])


def total_steps(pod: Object) -> int | None:
    """The target of its training configuration; None: a program of the user."""
    config = json.loads(env(pod).get(Env.CONFIG, "{}"))
    total: int | None = config.get("total_steps")
    return total


def env(pod: Object) -> dict[str, str]:
    """The trainer container's environment; values that come from elsewhere are empty."""
    return {e["name"]: e.get("value", "") for e in pod["spec"]["containers"][0]["env"]}
