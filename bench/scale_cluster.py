"""A control plane for thousands of pods on one small machine, apart from everything else on it.

etcd, API server, controller-manager, scheduler and training-operator are the real ones, with their client limits
raised: they are not what is measured. With `is_played`, `scale_jobs.py` takes the place of scheduler and
training-operator. kwok plays nodes and kubelets, `scale_agents.py` the agents. All of it lives in a network namespace
of its own, where every address of 127.0.0.0/8 is free and nobody else's tests are met.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from trainrun_operator.kube import rbac

from tests.api.manifests import good, merged
from tests.controlplane.api import CORE, RUNS, Api
from tests.controlplane.control_plane import ControlPlane, install_definitions
from tests.controlplane.nodes import KUBELET, ROOM, STAGES, kwok
from tests.controlplane.processes import Process
from tests.controlplane.rights import OPERATOR_USER, grant, prepare_operator
from tests.controlplane.training_operator import training_operator, wait_ready, wait_served

NAMESPACE = "scale"
INSIDE = "TRAINRUN_BENCH_INSIDE"
CLIENT_LIMITS = ("--kube-api-qps=1000", "--kube-api-burst=2000")
POD_BYTES, NODE_BYTES = 10_000, 10_000
"""Of an object's JSON as the API server sends it; environment and image lists make real ones as big."""
BYTES_PER_VARIABLE, BYTES_PER_IMAGE = 230, 290
BARE_POD_BYTES, BARE_NODE_BYTES = 7_300, 1_500
HANDS = 8
"""Calls at once when something is made or broken."""


def enter_own_network() -> None:
    """Start this program again in a network namespace of its own; returns there, with loopback up."""
    if INSIDE not in os.environ:
        as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        command = ["unshare", "--net", *as_root, sys.executable, *sys.argv]
        os.execvpe("unshare", command, {**os.environ, INSIDE: "1"})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh", b"lo", 1)  # IFF_UP
        fcntl.ioctl(any_socket, 0x8914, request)  # SIOCSIFFLAGS


@contextmanager
def big_cluster(folder: Path, nodes: int, *, is_played: bool) -> Iterator[ControlPlane]:
    """Everything but runs and the operator."""
    with ControlPlane(folder) as plane:
        api = plane.api()
        install_definitions(api)
        plane.start_controllers(*CLIENT_LIMITS)
        prepare_operator(api)
        grant(api, "ClusterRole", "", "trainrun", rbac.rules(rbac.PER_NAMESPACE, rbac.SCANNING))
        api.create(f"{CORE}/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        with kwok(plane, _stages(folder)), _helper(plane, "scale_agents"):
            in_parallel(plane, add_node, [f"node-{number:04}" for number in range(nodes)])
            if is_played:
                with _helper(plane, "scale_jobs"):
                    yield plane
                return
            with training_operator(plane, "1.9.4") as operator:
                wait_ready(plane, operator, "1.9.4")
                wait_served(api)
                yield plane


def in_parallel(plane: ControlPlane, call: Callable[[Api, Any], Any], items: Sequence[Any]) -> list[Any]:
    """The call's answers, in the order of the items."""
    hands = [plane.api() for _ in range(HANDS)]
    with ThreadPoolExecutor(HANDS) as pool:
        parts = [pool.submit(lambda n: [call(hands[n], i) for i in items[n::HANDS]], n) for n in range(HANDS)]
        answers: list[Any] = [None] * len(items)
        for n, part in enumerate(parts):
            answers[n::HANDS] = part.result()
    return answers


def add_node(api: Api, name: str) -> None:
    """With room for 8 devices, and as many words as a real one has about its images."""
    count = (NODE_BYTES - BARE_NODE_BYTES) // BYTES_PER_IMAGE
    images = [{"names": [f"registry.example/some/image@sha256:{n:064x}", f"registry.example/some/image:{n:064}"],
               "sizeBytes": 1_000_000_000 + n} for n in range(count)]  # fmt: skip
    labels = {"kubernetes.io/hostname": name, KUBELET: "kwok"}
    status = {"capacity": ROOM, "allocatable": ROOM, "images": images}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "status": status}
    api.create(f"{CORE}/nodes", node)


def add_run(api: Api, name: str, workers: int) -> None:
    """Of one device per worker, so that a lost node's pods find another place."""
    count = (POD_BYTES - BARE_POD_BYTES) // BYTES_PER_VARIABLE
    padding = [{"name": f"PADDING_{n:02}", "value": f"{n:0110}"} for n in range(count)]
    patch = {
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "workers": {
                "replicas": workers,
                "accelerator": "cuda",
                "template": {"spec": {"containers": [{"name": "pytorch", "env": padding}]}},
            },
            "config": {"total_steps": 1_000_000, "global_batch_rows": 2 * workers},
            "checkpoint": {"path": f"/checkpoints/{name}"},
        },
    }
    api.create(f"{RUNS}/namespaces/{NAMESPACE}/trainingruns", merged(good(), patch))


def _stages(folder: Path) -> Path:
    """The tests' kwok stages, but heartbeats are not kwok's (`scale_agents.py`), and a deleted pod goes at once."""
    stages = [s for s in yaml.safe_load_all(STAGES.read_text()) if s["metadata"]["name"] != "node-heartbeat"]
    for stage in stages:
        if stage["metadata"]["name"] == "pod-goes":
            expressions = stage["spec"]["selector"]["matchExpressions"]
            stage["spec"]["selector"]["matchExpressions"] = [e for e in expressions if "phase" not in e["key"]]
    file = folder / "stages.yaml"
    file.write_text(yaml.safe_dump_all(stages))
    return file


def _helper(plane: ControlPlane, name: str) -> Process:
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join(str(root / part) for part in (".", "api", "operator", "trainer"))
    command = [sys.executable, str(root / "bench" / f"{name}.py"), str(plane.kubeconfig())]
    return Process(name, command, plane.folder, env={**os.environ, "PYTHONPATH": path})


def operator_config(plane: ControlPlane) -> Path:
    """The kubeconfig of the operator's own user."""
    return plane.kubeconfig(OPERATOR_USER)
