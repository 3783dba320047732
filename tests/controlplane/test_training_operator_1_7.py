"""The main scenarios on training-operator 1.7.0, the version of HyperPod's chart: no webhook, no managedBy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.controlplane.conftest import build, make_stage
from tests.controlplane.control_plane import ControlPlane, install_definitions
from tests.controlplane.kubelets import Kubelets, said
from tests.controlplane.stage import Stage, prepare_operator
from tests.controlplane.test_operator import finish
from tests.controlplane.training_operator import training_operator


@pytest.fixture(scope="module")
def old_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ControlPlane, Kubelets]]:
    """A control plane of its own: the definitions of PyTorchJob differ."""
    build("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "training-operator-1.7.0")
    with ControlPlane(tmp_path_factory.mktemp("control-plane-1-7")) as plane:
        install_definitions(plane.api(), "training-operator-1.7")
        plane.start_controllers()
        prepare_operator(plane.api())
        with training_operator(plane, "1.7.0"), Kubelets(plane.api()) as kubelets:
            yield plane, kubelets


@pytest.fixture
def old_stage(old_plane: tuple[ControlPlane, Kubelets]) -> Iterator[Stage]:
    """A namespace and three nodes there."""
    yield from make_stage(*old_plane)


def test_a_failed_pod_gives_a_new_attempt_that_succeeds(old_stage: Stage) -> None:
    """The whole life of a run."""
    with old_stage.operator():
        old_stage.create_run("a")
        first, _ = old_stage.wait_running("a", 0)
        old_stage.kubelets.end(first, 30, said(first, 30, "DeviceSuspect", step=7))
        finish(old_stage, old_stage.wait_running("a", 1))
        old_stage.wait_status("a", phase="Succeeded")
        assert old_stage.attempts("a") == [(0, "DeviceSuspect"), (1, "Done")]


def test_a_removed_node_gives_a_new_attempt(old_stage: Stage) -> None:
    """The lost pod stays Terminating; the next job has other names."""
    with old_stage.operator():
        old_stage.create_run("a")
        lost = old_stage.wait_running("a", 0)[1]["spec"]["nodeName"]
        old_stage.kubelets.lost.add(lost)
        old_stage.kubelets.remove_node(lost)
        old_stage.wait_running("a", 1)
        assert old_stage.attempts("a") == [(0, "NodeLost"), (1, None)]


def test_suspend_and_resume(old_stage: Stage) -> None:
    """Our own suspension deletes the job."""
    with old_stage.operator():
        old_stage.create_run("a")
        old_stage.wait_running("a", 0)
        old_stage.edit_run("a", {"suspend": True})
        old_stage.wait_status("a", phase="Suspended")
        old_stage.edit_run("a", {"suspend": False})
        old_stage.wait_running("a", 1)
        assert old_stage.attempts("a") == [(0, "Suspended"), (1, None)]
