"""A control plane with everything that runs on it: controllers, training-operator, kwok's nodes and played trainers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.controlplane.control_plane import ControlPlane
from tests.controlplane.nodes import Nodes, kwok
from tests.controlplane.rights import prepare_operator
from tests.controlplane.trainers import Trainers
from tests.controlplane.training_operator import training_operator, wait_ready, wait_served

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
"""Needed beside training-operator."""


@dataclass(frozen=True)
class Cluster:
    """What tests act on."""

    plane: ControlPlane
    nodes: Nodes
    trainers: Trainers


@contextmanager
def cluster(plane: ControlPlane, version: str) -> Iterator[Cluster]:
    """The plane, whose definitions are installed, with training-operator of that version; it has no nodes yet."""
    plane.start_controllers()
    prepare_operator(plane.api())
    with training_operator(plane, version) as process, kwok(plane):
        wait_ready(plane, process, version)
        if not version.startswith("1.7"):
            wait_served(plane.api())
        nodes = Nodes(plane.api())
        with Trainers(plane.api(), nodes) as trainers:
            yield Cluster(plane, nodes, trainers)
