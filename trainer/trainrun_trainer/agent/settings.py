"""What the agent is told by its environment, read once at the start."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from typing import Mapping, Optional, Tuple

from trainrun_api.contract import AGENT_PORT, TERMINATION_LOG, Env

RENDEZVOUS = "PET_RDZV_ENDPOINT"
"""host:port of the rendezvous, as training-operator tells torchrun."""


class SettingsError(Exception):
    """A variable of the environment cannot be used; the message names it, its value and what is expected."""


@dataclass(frozen=True)
class Settings:
    """The environment of a pod, parsed."""

    run: str
    attempt: int
    stage: str
    accelerator: str
    pod_index: int
    replicas: int
    peers: Tuple[str, ...]
    host: str
    port: int
    progress_dir: str
    termination_log: str
    deadline_seconds: Optional[float]
    grace_seconds: float
    rendezvous_endpoint: str
    rendezvous_wait_seconds: float

    @property
    def role(self) -> str:
        """What this pod begins as: pods beyond the wanted number of replicas wait warm."""
        return "spare" if self.pod_index >= self.replicas else "member"

    @property
    def kill_after_seconds(self) -> float:
        """Seconds from a stop request to the end of the tree: 5 s before the kubelet, so that the message is ours."""
        return max(self.grace_seconds - 5.0, self.grace_seconds / 2)


def read_settings(env: Mapping[str, str]) -> Settings:
    """Parse the environment. Raises SettingsError with a sentence for the first value that is no number."""
    deadline = _number(env, Env.DEADLINE, 0.0)
    return Settings(
        run=env.get(Env.RUN, ""),
        attempt=int(_number(env, Env.ATTEMPT, 0)),
        stage=env.get(Env.STAGE, ""),
        accelerator=env.get(Env.ACCELERATOR, "cpu"),
        pod_index=int(_number(env, Env.POD_INDEX, 0)),
        replicas=int(_number(env, Env.REPLICAS, 1)),
        peers=tuple(p.strip() for p in env.get(Env.PEERS, "").split(",") if p.strip()),
        host=env.get(Env.AGENT_HOST, ""),  # every address: the operator asks from another node
        port=int(_number(env, Env.AGENT_PORT, AGENT_PORT)),
        progress_dir=env.get(Env.PROGRESS_DIR) or os.path.join(tempfile.gettempdir(), "trainrun-progress"),
        termination_log=env.get(Env.TERMINATION_LOG, TERMINATION_LOG),
        deadline_seconds=deadline if deadline > 0 else None,
        grace_seconds=_number(env, Env.GRACE_SECONDS, 120.0),
        rendezvous_endpoint=env.get(RENDEZVOUS, ""),
        rendezvous_wait_seconds=_number(env, Env.RENDEZVOUS_WAIT, 300.0),
    )


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    raw = env.get(name, "")
    if not raw:
        return float(default)
    try:
        value = float(raw)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise SettingsError("%s=%r is not a number of 0 or more; correct it in the pod's environment" % (name, raw))
    return value
