"""One control plane for the session, one namespace and a set of nodes for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from trainrun_operator.kube import rbac

from tests.controlplane.api import CORE
from tests.controlplane.binaries import BuildError, ensure
from tests.controlplane.control_plane import ControlPlane, install_definitions
from tests.controlplane.kubelets import Kubelets
from tests.controlplane.stage import Stage, grant, prepare_operator
from tests.controlplane.training_operator import tidy, training_operator, wait_ready, wait_served

NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def bare_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """API server with the definitions and no controllers."""
    build("etcd", "kube-apiserver")
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as plane:
        install_definitions(plane.api())
        yield plane


@pytest.fixture(scope="session")
def plane(bare_plane: ControlPlane) -> Iterator[ControlPlane]:
    """With controllers, scheduler, and training-operator 1.9.4 with its webhook."""
    build("kube-controller-manager", "kube-scheduler", "training-operator-1.9.4")
    bare_plane.start_controllers()
    prepare_operator(bare_plane.api())
    with training_operator(bare_plane, "1.9.4") as process:
        wait_ready(bare_plane, process, "1.9.4")
        wait_served(bare_plane.api())
        yield bare_plane
    tidy()


def build(*programs: str) -> None:
    """Have the programs, or skip with the reason."""
    try:
        for name in programs:
            ensure(name)
    except BuildError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def kubelets(plane: ControlPlane) -> Iterator[Kubelets]:
    """Kubelets of all nodes."""
    with Kubelets(plane.api()) as kubelets:
        yield kubelets


@pytest.fixture
def stage(plane: ControlPlane, kubelets: Kubelets) -> Iterator[Stage]:
    """A namespace of its own with the operator's rights, three nodes; everything in it goes at the end."""
    yield from make_stage(plane, kubelets)


def make_stage(plane: ControlPlane, kubelets: Kubelets) -> Iterator[Stage]:
    """The fixture's work, for control planes of other versions."""
    number = next(NUMBERS)
    namespace, api = f"test-{number}", plane.api()
    api.create(f"{CORE}/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    grant(api, "Role", namespace, "trainrun", rbac.rules(rbac.PER_NAMESPACE))
    nodes = [f"node-{number}-{letter}" for letter in "abc"]
    for node in nodes:
        kubelets.add_node(node)
    yield Stage(plane, kubelets, namespace)
    for run in api.get(f"/apis/trainrun.dev/v1alpha1/namespaces/{namespace}/trainingruns")["items"]:
        api.delete(f"/apis/trainrun.dev/v1alpha1/namespaces/{namespace}/trainingruns/{run['metadata']['name']}")
    kubelets.reset()
    for node in nodes:
        kubelets.remove_node(node)
    api.delete(f"{CORE}/namespaces/{namespace}")
