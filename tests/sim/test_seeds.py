"""Random faults on the shipped decision code: invariants after every step, liveness when the faults have ended.

A failing seed is in the test's name. Replay: pytest "tests/sim/test_seeds.py::test_runs_survive_their_weather[SEED]".
TRAINRUN_SIM_SEEDS=2000 searches further; what it finds goes to REGRESSIONS.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from trainrun_operator.cluster import Key
from trainrun_operator.testing.manifests import small_spec
from trainrun_operator.testing.simulation import Simulation
from trainrun_operator.testing.trainers import Pace

from tests.sim.draws import between, unit
from tests.sim.invariants import Invariants
from tests.sim.weather import CALM_SECONDS, Weather

SEEDS = int(os.environ.get("TRAINRUN_SIM_SEEDS", "200"))

REGRESSIONS: tuple[int, ...] = ()
"""Seeds beyond the first 200 that once failed."""

LIVENESS_SECONDS = 4 * 3600.0
"""Ten minutes of back-off and of flapping nodes, several times over."""


STAGES: list[dict[str, Any]] = [
    {"name": "texts", "kind": "prepare"},
    {"name": "base", "kind": "train", "config": {"total_steps": 60}},
    {"name": "tuned", "kind": "train", "workers": {"replicas": 2, "minReplicas": 1}},
    {"name": "after", "kind": "consolidate", "config": {"checkpoint": "stage:tuned/checkpoints"}},
]
"""Of some runs."""


def build(seed: int) -> tuple[Simulation, list[Key]]:
    """A cluster with one to three runs and one or two operators."""
    sim = Simulation(
        nodes=between(4, 7, seed, "nodes"),
        operators=1 if unit(seed, "operators") < 0.5 else 2,
        pace=Pace(
            start=between(2, 20, seed, "start"), step=between(1, 5, seed, "step"), save=between(1, 9, seed, "save")
        ),
    )
    sim.world.interleave = unit(seed, "interleave") < 0.3
    runs = []
    for n in range(between(1, 3, seed, "runs")):
        name = f"r{n}"
        config = small_spec(name)["config"] | {"total_steps": between(100, 400, seed, "steps", n)}
        workers = {"replicas": between(1, 3, seed, "replicas", n), "accelerator": "cpu"}
        if unit(seed, "elastic", n) < 0.4:
            workers["minReplicas"] = between(1, int(str(workers["replicas"])), seed, "least", n)
        if int(str(workers["replicas"])) > 1 and unit(seed, "spared", n) < 0.3:
            workers["spares"] = between(1, 2, seed, "spares", n)
        grace = between(10, 60, seed, "grace", n)
        stages = STAGES if unit(seed, "staged", n) < 0.25 else []
        runs.append(
            sim.world.add_run(name, config=config, workers=workers, stages=stages, terminationGracePeriodSeconds=grace)
        )
    return sim, runs


@pytest.mark.parametrize("seed", [*range(SEEDS), *REGRESSIONS])
def test_runs_survive_their_weather(seed):
    """Every run ends with a result and words, nothing is done twice, and the books close."""
    sim, runs = build(seed)
    weather, invariants = Weather(seed, sim, runs), Invariants(sim, runs)
    while not weather.is_calm:
        weather.tick()
        sim.step(at_most=min(20.0, CALM_SECONDS))
        invariants.check()
    weather.tick()
    for index in range(6):
        sim.world.add_node(f"spare{index}")  # capacity is not what is tested from here on

    def is_over() -> bool:
        invariants.check()
        return all(sim.world.status(key).get("result") for key in runs)

    assert sim.until(is_over, limit_seconds=LIVENESS_SECONDS), [sim.world.status(key)["conditions"][0] for key in runs]
    for key in runs:
        status = sim.world.status(key)
        if status["result"] == "Failed":
            assert status["failure"]["evidence"][0]
            assert status["failure"]["action"]
        else:
            assert status["checkpoint"]["step"] == status["progress"]["totalSteps"]
