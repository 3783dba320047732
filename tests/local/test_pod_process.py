"""From a pod manifest to a process, and to ports."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from trainrun_operator.errors import LocalModeError
from trainrun_operator.local.pod_process import Places, Ports, command_of, environment_of
from trainrun_operator.local.ports import PortBook

INDEX_LABEL = "metadata.labels['training.kubeflow.org/replica-index']"
PORTS = Ports(20000, (20001, 20002))
PLACES = Places(Path("/w/p"), Path("/w/c"), Path("/w/f"), Path("/w"))


def pod(**container: object) -> dict:
    labels = {"training.kubeflow.org/replica-index": "1", "a/b": "c"}
    return {
        "metadata": {"name": "r-a0-worker-1", "namespace": "default", "uid": "u", "labels": labels},
        "spec": {"nodeName": "slot-1", "containers": [{"name": "pytorch", **container}]},
    }


@pytest.mark.parametrize(
    ("container", "program"),
    [
        ({}, []),
        ({"command": ["python3", "-m", "trainrun_trainer.agent"]}, []),
        ({"command": ["python3", "agent.pyz", "--", "./train.sh", "--lr"], "args": ["1"]},
         ["--", "./train.sh", "--lr", "1"]),
        (
            {"command": ["python3", "agent.pyz", "--", "torchrun", "train.py"]},
            ["--", sys.executable, "-m", "torch.distributed.run", "train.py"],
        ),
    ],
    ids=["image", "agent", "command", "torchrun"],
)  # fmt: skip
def test_every_pod_is_an_agent(container: dict, program: list[str]) -> None:
    """The user's own program follows behind `--`; torchrun is this Python's."""
    assert command_of(pod(**container)) == [sys.executable, "-m", "trainrun_trainer.agent", *program]


def test_environment_is_the_manifests_with_this_machines_addresses() -> None:
    """Fields are resolved, references expanded, addresses and folders replaced, another run's words dropped."""
    env = [
        {"name": "TRAINRUN_RUN", "value": "r"},
        {"name": "TRAINRUN_CHECKPOINT_PATH", "value": "/checkpoints/r"},
        {"name": "WHO", "value": "$(TRAINRUN_RUN)-$(MISSING)"},
        {"name": "TRAINRUN_POD_INDEX", "valueFrom": {"fieldRef": {"fieldPath": INDEX_LABEL}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "PET_RDZV_ENDPOINT", "value": "r-a0-worker-0:23456"},
        {"name": "PET_NNODES", "value": "2:2"},
    ]  # fmt: skip
    inherited = {"HOME": "/h", "RANK": "3", "PET_NNODES": "9:9", "TRAINRUN_ATTEMPT": "7", "PATH": "/bin"}
    made = environment_of(pod(env=env), PORTS, PLACES, inherited)
    wanted = {
        "HOME": "/h",
        "WHO": "r-$(MISSING)",
        "NODE": "slot-1",
        "TRAINRUN_POD_INDEX": "1",
        "PET_NNODES": "2:2",
        "PET_RDZV_ENDPOINT": "127.0.0.1:20000",
        "TRAINRUN_AGENT_PORT": "20002",
        "TRAINRUN_AGENT_HOST": "127.0.0.1",
        "TRAINRUN_PEERS": "127.0.0.1:20001,127.0.0.1:20002",
        "TRAINRUN_CHECKPOINT_PATH": "/w/c",
        "TRAINRUN_TERMINATION_LOG": "/w/p/termination-log",
        "TRAINRUN_FAULTS": "/w/f",
    }
    assert {k: made.get(k) for k in wanted} == wanted
    assert "RANK" not in made and "TRAINRUN_ATTEMPT" not in made
    assert made["PATH"] == f"{Path(sys.executable).parent}:/bin"


def test_environment_from_a_config_map_is_refused() -> None:
    """Starting without it would be another program."""
    with pytest.raises(LocalModeError, match="envFrom names a Secret or ConfigMap"):
        environment_of(pod(envFrom=[{"secretRef": {"name": "s"}}]), PORTS, PLACES, {})


def test_a_job_keeps_its_ports_and_two_jobs_share_none(tmp_path: Path) -> None:
    """A pod started by the next operator process finds the peers of the first."""
    first = PortBook(tmp_path / "ports.json").of("job-a", 2)
    book = PortBook(tmp_path / "ports.json")
    assert book.of("job-a", 2) == first
    other = book.of("job-b", 3)
    numbers = [first.rendezvous, *first.agents, other.rendezvous, *other.agents]
    assert len(set(numbers)) == 7
    assert book.of("job-a", 3).agents[:2] == first.agents
