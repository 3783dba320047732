"""Runs with warm spares in a modelled world: what the pods settle among themselves, and what the operator does then."""

from __future__ import annotations

from typing import Any

import pytest
from trainrun_operator.cluster import Key
from trainrun_operator.testing.simulation import Simulation

from tests.operator.modelled import at_step, causes, node_of, patiently

WORKERS = {"replicas": 2, "spares": 1, "accelerator": "cpu"}


def with_spares(nodes: int, **workers: Any) -> tuple[Simulation, Key]:
    """Two workers and a spare that train."""
    sim = Simulation(nodes=nodes)
    key = sim.world.add_run("a", workers=WORKERS | workers)
    at_step(sim, key, 25)
    return sim, key


def reasons(sim: Simulation) -> list[str]:
    """What people were told, in order."""
    return [event[1] for event in sim.cluster.events]


@pytest.mark.parametrize("how", ["vanishes", "object goes"])
def test_a_spare_takes_the_place_of_a_lost_member_within_the_attempt(how: str) -> None:
    """One attempt, no restart spent; the lost pod is removed, the node avoided, and there is a new spare."""
    sim, key = with_spares(nodes=4)
    lost, uid = node_of(sim.world, key, 1), sim.world.pods(key)[1]["metadata"]["uid"]
    (sim.world.kill_node if how == "vanishes" else sim.world.remove_node)(lost)
    assert sim.until(lambda: uid not in {p["metadata"]["uid"] for p in sim.world.pods(key)}, limit_seconds=120)

    def has_next_spare() -> bool:
        """Not where the lost member was, though nobody knows at first that the node is lost."""
        nodes = {p["spec"].get("nodeName") for p in sim.world.pods(key)}
        return len(nodes - {None, lost}) == 3

    assert sim.until(has_next_spare, limit_seconds=120)
    status = sim.finish(key)
    assert (status["result"], causes(status), status["restarts"]) == ("Succeeded", ["Done"], 0)
    attempt = status["attempts"][0]
    assert (attempt["spares"], attempt["replaced"], attempt["inplaceRestarts"]) == (1, 1, 1)
    assert "replacedPods" not in attempt, "only while the attempt is open"
    assert status["nodes"]["excluded"] == [lost]
    assert "MembersReplaced" in reasons(sim) and "NodeLost" not in str(sim.cluster.events)


def test_without_a_node_for_the_next_spare_the_run_goes_on() -> None:
    """The pod waits for a node, the run does not."""
    sim, key = with_spares(nodes=3)
    sim.world.kill_node(node_of(sim.world, key, 1))
    status = sim.finish(key)
    assert (status["result"], causes(status)) == ("Succeeded", ["Done"])
    assert "WaitingForCapacity" not in reasons(sim)


def test_without_a_node_for_the_spare_the_run_begins() -> None:
    """Two nodes for two workers: nobody waits for the third."""
    sim, key = with_spares(nodes=2)
    status = sim.finish(key)
    assert (status["result"], causes(status)) == ("Succeeded", ["Done"])
    assert status["attempts"][0].get("scheduledAt")
    assert "WaitingForCapacity" not in reasons(sim)


def test_the_loss_of_worker_0_needs_a_new_attempt() -> None:
    """It hosts the rendezvous."""
    sim, key = with_spares(nodes=5)
    patiently(sim.world, key, 0)
    status = sim.finish(key)
    assert (status["result"], causes(status), status["restarts"]) == ("Succeeded", ["NodeLost", "Done"], 0)


def test_more_losses_than_spares_need_a_new_attempt() -> None:
    """Two members of three at once, one spare."""
    sim, key = with_spares(nodes=8, replicas=3)
    for index in (1, 2):
        patiently(sim.world, key, index)
    status = sim.finish(key)
    assert (status["result"], causes(status), status["restarts"]) == ("Succeeded", ["NodeLost", "Done"], 0)


@pytest.mark.parametrize("how", ["vanishes", "is marked"])
def test_a_lost_spare_is_replaced_and_disturbs_nobody(how: str) -> None:
    """Neither a stop nor a restart: it had no seat."""
    sim, key = with_spares(nodes=4)
    node = node_of(sim.world, key, 2)
    if how == "vanishes":
        sim.world.kill_node(node)
    else:
        sim.world.mark_node(node, "UnschedulablePendingReplacement")
    status = sim.finish(key)
    assert (status["result"], causes(status)) == ("Succeeded", ["Done"])
    assert (status["attempts"][0]["replaced"], status["attempts"][0].get("inplaceRestarts", 0)) == (1, 0)


def test_an_operator_that_begins_asks_who_trains_before_it_stops_all_for_a_marked_node() -> None:
    """The spare's node was marked while nobody looked."""
    sim, key = with_spares(nodes=4)
    sim.operators[0] = sim._start()
    sim.world.mark_node(node_of(sim.world, key, 2), "UnschedulablePendingReplacement")
    status = sim.finish(key)
    assert (status["result"], causes(status), status["attempts"][0]["replaced"]) == ("Succeeded", ["Done"], 1)


def test_a_marked_members_node_is_left_by_a_save_stop() -> None:
    """It still works, so nothing need be lost."""
    sim, key = with_spares(nodes=5)
    sim.world.mark_node(node_of(sim.world, key, 1), "UnschedulablePendingReplacement")
    status = sim.finish(key)
    assert causes(status) == ["NodeMarked", "Done"]
    assert status["attempts"][0].get("replaced", 0) == 0


def test_a_member_whose_agent_alone_is_silent_keeps_its_pod() -> None:
    """Steps are made, and nobody else says that it holds the member's rank: no ground to touch it."""
    sim, key = with_spares(nodes=4)
    uid = sim.world.pods(key)[1]["metadata"]["uid"]
    sim.world.mute.add(node_of(sim.world, key, 1))
    sim.run(40)
    assert sim.world.pods(key)[1]["metadata"]["uid"] == uid
    assert sim.finish(key)["attempts"][0].get("replaced", 0) == 0


def test_a_run_that_is_short_of_nodes_asks_for_no_spare() -> None:
    """Fewer workers than wanted, so every node is wanted for training."""
    sim = Simulation(nodes=2)
    key = sim.world.add_run("a", workers=WORKERS | {"replicas": 3, "minReplicas": 2})
    status = sim.finish(key)
    assert [a.get("spares", 0) for a in status["attempts"]] == [1, 0]
    assert status["result"] == "Succeeded"


def test_an_edit_of_their_number_is_taken_at_the_next_attempt() -> None:
    """Nobody is stopped for it."""
    sim, key = with_spares(nodes=4, spares=0)
    sim.world.edit_run(key, workers=WORKERS)
    sim.run(10)
    assert len(sim.world.pods(key)) == 2
    sim.world.edit_run(key, restartToken="again")
    status = sim.finish(key)
    assert [a.get("spares", 0) for a in status["attempts"]] == [0, 1]
