"""What tests ask of runs in a modelled world."""

from __future__ import annotations

from typing import Any

from trainrun_operator.cluster import Key
from trainrun_operator.testing.simulation import Simulation


def at_step(sim: Simulation, key: Key, step: int) -> None:
    """Go on until the trainer has made that many steps."""
    assert sim.until(
        lambda: any(g.step >= step and not g.is_over for g in sim.world.groups.values() if g.run == key),
        limit_seconds=600,
    )


def causes(status: dict[str, Any]) -> list[str]:
    """Why each attempt ended."""
    return [a["cause"] for a in status["attempts"]]


def node_of(world: Any, key: Key, index: int) -> str:
    """Name of the node that a pod of the run is on."""
    return world.pods(key)[index]["spec"]["nodeName"]


def job_of(world: Any, key: Key) -> Key:
    """The run's living job."""
    return Key(key.namespace, world.living_jobs(key)[0]["metadata"]["name"])


def pod_of(world: Any, key: Key, index: int) -> Key:
    """A pod of the run."""
    return Key(key.namespace, world.pods(key)[index]["metadata"]["name"])


def patiently(world: Any, key: Key, index: int) -> None:
    """A node of a run whose stall limit is longer than the 40 s after which a node that is silent is not Ready."""
    world.edit_run(key, health={"stallTimeoutSeconds": 600})
    world.kill_node(node_of(world, key, index))
