"""What a pod manifest becomes on this machine: a command line and an environment. Pure.

The manifest is the one that a cluster would get; only addresses and paths are replaced, since processes of one
machine share both.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainrun_api.contract import Env

from trainrun_operator.cluster import Object
from trainrun_operator.errors import LocalModeError
from trainrun_operator.job_controller import REPLICA_INDEX_LABEL

POD_FOLDER = "TRAINRUN_LOCAL_POD"
"""Marks every process of a pod with its folder, so that one started just before a crash is found again."""
AGENT = (sys.executable, "-m", "trainrun_trainer.agent")
CONTAINER = "pytorch"
LOOPBACK = "127.0.0.1"
FIELD_PATH = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
FOREIGN = re.compile(
    r"^(TRAINRUN_|PET_|TORCHELASTIC_|(RANK|LOCAL_RANK|GROUP_RANK|WORLD_SIZE|MASTER_ADDR|MASTER_PORT)$)"
)
"""Variables of our own shell that would change what the pod believes to be."""


@dataclass(frozen=True)
class Ports:
    """Ports of one job: the rendezvous, and the agents in pod-index order."""

    rendezvous: int
    agents: tuple[int, ...]


@dataclass(frozen=True)
class Places:
    """Folders of one pod."""

    pod: Path
    checkpoints: Path
    faults: Path
    workdir: Path
    """Where relative data paths start: the manifest's folder."""

    @property
    def termination_log(self) -> Path:
        """Stands for /dev/termination-log."""
        return self.pod / "termination-log"


def command_of(pod: Object) -> list[str]:
    """The agent, and behind `--` the user's own program if the manifest has one."""
    container = trainer_container(pod)
    words = [*(container.get("command") or []), *(container.get("args") or [])]
    if "--" not in words:
        return [*AGENT]
    program = words[words.index("--") + 1 :]
    if program[:1] == ["torchrun"]:
        program = [sys.executable, "-m", "torch.distributed.run", *program[1:]]
    return [*AGENT, "--", *program]


def environment_of(pod: Object, ports: Ports, places: Places, inherited: Mapping[str, str]) -> dict[str, str]:
    """Ours (without what belongs to another run), then the manifest's, then what this machine needs.

    Raises LocalModeError for a value that only a cluster can give.
    """
    env = {k: v for k, v in inherited.items() if not FOREIGN.match(k)}
    env["PATH"] = f"{Path(sys.executable).parent}:{env.get('PATH', '/usr/bin:/bin')}"
    stated: dict[str, str] = {}
    container = trainer_container(pod)
    if container.get("envFrom"):
        raise LocalModeError("envFrom names a Secret or ConfigMap, and local mode has none; set env values instead")
    for entry in container.get("env") or []:
        stated[entry["name"]] = _expand(_value(pod, entry), stated)
    index = int(pod["metadata"]["labels"][REPLICA_INDEX_LABEL])
    env |= stated
    env |= {
        POD_FOLDER: str(places.pod),
        Env.AGENT_HOST: LOOPBACK,
        Env.AGENT_PORT: str(ports.agents[index]),
        Env.PEERS: ",".join(f"{LOOPBACK}:{port}" for port in ports.agents),
        Env.PROGRESS_DIR: str(places.pod / "progress"),
        Env.TERMINATION_LOG: str(places.termination_log),
        Env.CHECKPOINT_PATH: str(places.checkpoints),
        Env.FAULTS: str(places.faults),
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONUNBUFFERED": "1",
    }
    resume = json.loads(env.get(Env.RESUME) or "{}")
    if "path" in resume:  # of another run, whose folder lies beside ours
        resume["path"] = str(places.checkpoints.parents[1] / resume["run"] / places.checkpoints.name)
        env[Env.RESUME] = json.dumps(resume)
    if "PET_RDZV_ENDPOINT" in env:
        env["PET_RDZV_ENDPOINT"] = f"{LOOPBACK}:{ports.rendezvous}"
    return env


def trainer_container(pod: Object) -> Any:
    """The container that training-operator looks at."""
    return next(c for c in pod["spec"]["containers"] if c["name"] == CONTAINER)


def _value(pod: Object, entry: Mapping[str, Any]) -> str:
    source = entry.get("valueFrom")
    if source is None:
        return str(entry.get("value", ""))
    path = (source.get("fieldRef") or {}).get("fieldPath", "")
    match = FIELD_PATH.fullmatch(path)
    if match:
        return str((pod["metadata"].get(match[1]) or {}).get(match[2], ""))
    simple: dict[str, str] = {
        "metadata.name": pod["metadata"]["name"],
        "metadata.namespace": pod["metadata"]["namespace"],
        "metadata.uid": pod["metadata"]["uid"],
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "status.podIP": LOOPBACK,
        "status.hostIP": LOOPBACK,
    }
    if path in simple:
        return simple[path]
    what: Sequence[str] = sorted(source)
    raise LocalModeError(
        f"environment variable {entry['name']} comes from {', '.join(what)}, which local mode has not; "
        "give it a plain value"
    )


def _expand(text: str, known: Mapping[str, str]) -> str:
    """`$(NAME)` of a variable that was stated earlier, as the kubelet does; unknown ones stay as they are."""
    return REFERENCE.sub(lambda m: known.get(m[1], m[0]), text)
