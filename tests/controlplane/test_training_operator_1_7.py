"""The main scenarios on training-operator 1.7.0, the version of HyperPod's chart: no webhook, no managedBy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.controlplane.cluster import PROGRAMS, Cluster, cluster
from tests.controlplane.conftest import build
from tests.controlplane.control_plane import ROOT, ControlPlane, install_definitions
from tests.controlplane.queue import hold_back_queued_jobs
from tests.controlplane.stage import Stage, new_stage
from tests.controlplane.stories import STORIES
from tests.controlplane.test_examples import EXAMPLES, run_example

MAIN = ["succeeds", "fails_and_goes_on", "loses_a_node", "loses_a_node_while_a_spare_waits", "leaves_a_marked_node",
        "is_suspended_and_resumed", "loses_its_job", "waits_in_a_queue"]  # fmt: skip
"""What differs between the versions is how jobs start, fail, are suspended and go."""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane of its own: the definitions of PyTorchJob differ."""
    build(*PROGRAMS, "training-operator-1.7.0")
    with ControlPlane(tmp_path_factory.mktemp("control-plane-1-7")) as plane:
        install_definitions(plane.api(), "training-operator-1.7")
        with cluster(plane, "1.7.0") as one:
            hold_back_queued_jobs(plane.api())
            yield one


@pytest.fixture
def old_stage(old: Cluster) -> Iterator[Stage]:
    """A namespace and three nodes there."""
    with new_stage(old) as one:
        yield one


@pytest.mark.parametrize("story", MAIN)
def test_a_story_ends_as_it_must(old_stage: Stage, story: str) -> None:
    """As on 1.9."""
    with old_stage.operator():
        STORIES[story](old_stage)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_example_runs(old_stage: Stage, path: Path) -> None:
    """From its job to its end."""
    run_example(old_stage, path)
