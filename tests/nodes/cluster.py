"""A whole cluster of real nodes on this machine, and nothing left of it afterwards.

`session()` is the lock that only one may hold; whatever a crashed session left goes first. `node_cluster()` is the
cluster: control plane, DNS, training-operator, a node for the operator, nodes for workers, the operator by Helm.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chart.helm import kubectl
from tests.controlplane.api import Api
from tests.controlplane.binaries import NODE_PROGRAMS, ensure
from tests.controlplane.control_plane import ControlPlane, install_job_definition
from tests.controlplane.training_operator import training_operator, wait_ready, wait_served
from tests.nodes import cgroups, network, release
from tests.nodes.dns import coredns
from tests.nodes.images import Images, ensure_images
from tests.nodes.machine import IMAGES, RUN, WORK, Unavailable, ensure_machine
from tests.nodes.node import Node
from tests.nodes.seed import Seed

PROGRAMS = (
    "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "training-operator-1.9.4", *NODE_PROGRAMS,
)  # fmt: skip
WORKER_NODES = ("node-1", "node-2", "node-3")
SYSTEM_NODE = "system"
"""The operator's own: docs/install.md keeps it off the nodes of the workers."""


@dataclass(frozen=True)
class NodeCluster:
    """What tests act on."""

    plane: ControlPlane
    nodes: dict[str, Node]
    images: Images
    shared: Path
    """A folder that every pod may mount: the shared volume."""

    @property
    def api(self) -> Api:
        return self.plane.api()


@contextmanager
def session() -> Iterator[Images]:
    """Programs and images are there, nobody else is, and nothing is left afterwards. Raises Unavailable, BuildError,
    FetchError."""
    ensure_machine()
    for program in PROGRAMS:
        ensure(program)
    release.ensure_helm()
    kubectl()
    RUN.mkdir(exist_ok=True)
    with (RUN / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable("another session has its nodes on this machine") from error
        remove_remains()
        try:
            images = ensure_images()
            Seed().ensure(images)
            yield images
        finally:
            remove_remains()
            shutil.rmtree(RUN)


def remove_remains() -> None:
    """Everything under our names; the processes of a killed session died with it."""
    cgroups.remove_all()
    network.remove_all()
    for folder in (*WORK.glob("session-*"), *IMAGES.glob("build-*")):
        shutil.rmtree(folder)


@contextmanager
def node_cluster(images: Images) -> Iterator[NodeCluster]:
    """Ready for runs: the operator leads, three nodes of one device each wait for workers."""
    WORK.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="session-", dir=WORK)))
        folder.chmod(0o755)  # pods go through it to the shared folder
        stack.callback(network.remove_all)
        network.make_bridge()
        plane = stack.enter_context(ControlPlane(folder, address=network.ADDRESS))
        install_job_definition(plane.api())
        # before the controllers: the garbage collector looks for new kinds every 30 s only
        release.install(plane, images, node=SYSTEM_NODE)
        plane.start_controllers()
        stack.enter_context(coredns(folder, plane.kubeconfig()))
        operator = stack.enter_context(training_operator(plane, "1.9.4"))
        names = (*WORKER_NODES, SYSTEM_NODE)
        seed = Seed()
        nodes = {
            name: stack.enter_context(Node(name, number, folder, plane.kubeconfig(), seed, images.pause))
            for number, name in enumerate(names, 1)
        }
        wait_ready(plane, operator, "1.9.4")
        wait_served(plane.api())
        for node in nodes.values():
            node.wait_ready(plane.api())
        for name in WORKER_NODES:
            nodes[name].advertise_device(plane.api())
        release.wait_leading(plane)
        yield NodeCluster(plane, nodes, images, _shared(folder))


def _shared(folder: Path) -> Path:
    shared = folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)  # pods run as a user without a name here
    return shared
