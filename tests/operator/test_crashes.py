"""The operator killed before and after every single write of a run's story: its successor decides the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from trainrun_operator.cluster import Key
from trainrun_operator.testing.cluster import OperatorKilled
from trainrun_operator.testing.manifests import small_spec
from trainrun_operator.testing.simulation import Simulation

WRITES = frozenset(
    {"replace_run_status", "create_job", "delete_job", "delete_pod", "delete_pods", "detach_pod", "record_event"}
)


def at_step(sim: Simulation, key: Key, step: int) -> None:
    """Go on until the run's trainer is there."""
    assert sim.until(
        lambda: any(g.step >= step and not g.is_over for g in sim.world.groups.values() if g.run == key),
        limit_seconds=900,
    )


def lost_node(sim: Simulation, key: Key) -> None:
    """A node's object goes."""
    at_step(sim, key, 15)
    sim.world.remove_node(sim.world.pods(key)[1]["spec"]["nodeName"])


def program_error(sim: Simulation, key: Key) -> None:
    """A pod fails."""
    at_step(sim, key, 15)
    sim.world.fail_pod(sim.world.pods(key)[1], 22)


def taken_seat(sim: Simulation, key: Key) -> None:
    """A node goes, and a spare has the seat; the crash may come while its pod is removed."""
    sim.world.edit_run(key, workers={"replicas": 2, "spares": 1, "accelerator": "cpu"})
    at_step(sim, key, 15)
    sim.world.remove_node(sim.world.pods(key)[1]["spec"]["nodeName"])


def stages(sim: Simulation, key: Key) -> None:
    """Three stages, and a node goes in the second."""
    chain = [{"name": "texts", "kind": "prepare"}, {"name": "base", "kind": "train"}]
    again = {"name": "tuned", "kind": "train", "config": {"total_steps": 20}, "workers": {"replicas": 1}}
    sim.world.edit_run(key, stages=[*chain, again])
    at_step(sim, key, 15)
    sim.world.remove_node(sim.world.pods(key)[1]["spec"]["nodeName"])


def suspension(sim: Simulation, key: Key) -> None:
    """Suspended and resumed."""
    at_step(sim, key, 15)
    sim.world.edit_run(key, suspend=True)
    assert sim.until(lambda: sim.world.status(key)["phase"] == "Suspended", limit_seconds=400)
    sim.world.edit_run(key, suspend=False)


STORIES: dict[str, tuple[Callable[[Simulation, Key], None], list[str], int]] = {
    "lost node": (lost_node, ["NodeLost", "Done"], 0),
    "taken seat": (taken_seat, ["Done"], 0),
    "program error": (program_error, ["DeviceOutOfMemory", "Done"], 1),
    "stages": (stages, ["Done", "NodeLost", "Done", "Done"], 0),
    "suspension": (suspension, ["Suspended", "Done"], 0),
}


def tell(story: str, *, kill_at: int | None, after: bool) -> tuple[int, Simulation, Key]:
    """Play a story, with the operator killed at that write; returns how many writes there were."""
    sim = Simulation()
    seen = 0

    def count(call: str) -> None:
        nonlocal seen
        if call not in WRITES:
            return
        seen += 1
        if seen - 1 == kill_at:
            raise OperatorKilled

    setattr(sim.cluster, "after" if after else "before", count)
    key = sim.world.add_run("a", config=small_spec("a")["config"] | {"total_steps": 30})
    STORIES[story][0](sim, key)
    sim.finish(key)
    return seen, sim, key


@pytest.mark.parametrize("story", STORIES)
def test_a_crash_at_any_write_changes_nothing_but_time(story):
    """No second attempt, no lost attempt, the same causes and the same price."""
    _, causes, price = STORIES[story]
    writes, _, _ = tell(story, kill_at=None, after=False)
    assert writes > 15
    for kill_at in range(writes):
        for after in (False, True):
            _, sim, key = tell(story, kill_at=kill_at, after=after)
            status = sim.world.status(key)
            found = ([a["cause"] for a in status["attempts"]], status["restarts"], status["result"])
            assert found == (causes, price, "Succeeded"), f"killed {'after' if after else 'before'} write {kill_at}"
            assert sim.kills == 1 or kill_at == writes - 1
            creations = [line for line in sim.journal if line["reason"] == "CreateJob"]
            assert len({line["attempt"] for line in creations}) <= len(causes)


def test_two_operators_at_once_do_what_one_does():
    """Both always awake, the second one's pass inside the first one's, at every call."""
    sim = Simulation(operators=2)
    is_nested = False

    def interleave(call: str) -> None:
        nonlocal is_nested
        if not is_nested:
            is_nested = True
            try:
                sim.drive(1)
            finally:
                is_nested = False

    sim.cluster.before = interleave
    key = sim.world.add_run("a", config=small_spec("a")["config"] | {"total_steps": 30})
    lost_node(sim, key)
    status = sim.finish(key)
    assert ([a["cause"] for a in status["attempts"]], status["restarts"]) == (["NodeLost", "Done"], 0)
    assert [a["job"] for a in status["attempts"]] == ["a-a0", "a-a1"]
