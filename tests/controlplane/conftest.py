"""One control plane for the session, one namespace and a set of nodes for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.controlplane.binaries import BuildError, ensure
from tests.controlplane.cluster import PROGRAMS, Cluster, cluster
from tests.controlplane.control_plane import ControlPlane, install_definitions
from tests.controlplane.queue import hold_back_queued_jobs
from tests.controlplane.stage import Stage, new_stage
from tests.controlplane.training_operator import tidy


@pytest.fixture(scope="session")
def bare_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """API server with the definitions and no controllers."""
    build("etcd", "kube-apiserver")
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as plane:
        install_definitions(plane.api())
        yield plane


@pytest.fixture(scope="session")
def whole(bare_plane: ControlPlane) -> Iterator[Cluster]:
    """With everything that runs on it, training-operator 1.9.4 and its webhook included."""
    build(*PROGRAMS, "training-operator-1.9.4")
    with cluster(bare_plane, "1.9.4") as one:
        hold_back_queued_jobs(bare_plane.api())
        yield one
    tidy()


def build(*programs: str) -> None:
    """Have the programs, or skip with the reason."""
    try:
        for name in programs:
            ensure(name)
    except BuildError as error:
        pytest.skip(str(error))


@pytest.fixture
def stage(whole: Cluster) -> Iterator[Stage]:
    """A namespace of its own with the operator's rights, three nodes; everything in it goes at the end."""
    with new_stage(whole) as one:
        yield one
