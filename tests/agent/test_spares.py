"""Warm spares: a lost member's seat is taken by a pod that waits, without a word from the operator."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tests.agent.pods import Pod, small_launcher, started

STEPS = 240
PAUSE = "0.05"


def waits(pod: Pod) -> bool:
    """Whether the pod waits warm for a seat."""
    return bool(pod.file("launcher.json").get("state") == "spare")


def trains(pod: Pod, generation: int) -> bool:
    """Whether the pod makes steps in that generation."""
    record = pod.file("rank0.json")
    return record.get("generation") == generation and record.get("step", 0) > 0


def test_a_vanished_members_seat_is_taken_and_the_run_ends_well(tmp_path: Path) -> None:
    """One new generation, from the newest checkpoint; the spare says that it is a member, the second one waits on. When
    the old member is back it waits too, and disturbs nobody."""
    env = {"TEST_STEPS": str(STEPS), "TEST_STEP_SECONDS": PAUSE, "TEST_STORE": str(tmp_path / "store")}
    with started(tmp_path, small_launcher(), pods=2, spares=2, **env) as made:
        host, member, *spares = made
        host.until("both members train", lambda: trains(host, 0) and trains(member, 0))
        for spare in spares:
            spare.until("it waits", lambda spare=spare: waits(spare))
        member.freeze()
        taker = host.until("a seat is taken", lambda: next((s for s in spares if trains(s, 1)), None))
        host.until("worker 0 trains with it", lambda: trains(host, 1))
        other = next(s for s in spares if s is not taker)
        assert waits(other)
        member.thaw()
        member.until("the old member waits", lambda: waits(member))
        assert not member.file("rank0.json"), "it would still claim its rank"
        assert [host.wait(), taker.wait()] == [0, 0]
        assert [(p.message()["role"], p.message()["inplace_restarts"]) for p in (host, taker)] == [("member", 1)] * 2
        assert taker.message()["step"] == STEPS
        for pod in (other, member):
            assert pod.process.poll() is None, "what waits is ended by whoever made it"
            os.kill(pod.process.pid, signal.SIGTERM)
            assert pod.wait() == 10
            assert pod.message()["role"] == "spare"


def test_a_restart_in_place_leaves_the_seats_to_their_pods(tmp_path: Path) -> None:
    """Workers of both members are killed in turn; the spare stays one, and may go without any harm."""
    kills = 4
    acts = [{"generation": g, "rank": g % 2, "step": 20 * (g + 1), "do": "kill"} for g in range(kills)]
    env = {"TEST_STEPS": str(20 * (kills + 4)), "TEST_ACT": json.dumps(acts), "TEST_STORE": str(tmp_path / "store")}
    with started(tmp_path, small_launcher(), pods=2, spares=1, TEST_STEP_SECONDS=PAUSE, **env) as made:
        host, member, spare = made
        host.until("all restarts are over", lambda: trains(host, kills) and trains(member, kills))
        assert waits(spare)
        assert not spare.file("rank0.json")
        os.kill(spare.process.pid, signal.SIGTERM)
        assert spare.wait() == 10
        assert [host.wait(), member.wait()] == [0, 0]
        assert [p.message()["inplace_restarts"] for p in (host, member)] == [kills, kills]


def test_a_member_that_never_comes_is_replaced_in_the_first_round(tmp_path: Path) -> None:
    """It found no node, and the spare did: the run begins with the spare after half a minute."""
    env = {"TEST_STEPS": "5", "TEST_STORE": str(tmp_path / "store")}
    with started(tmp_path, small_launcher(), pods=2, spares=1, **env) as made:
        host, absent, spare = made
        absent.freeze()
        assert [host.wait(), spare.wait()] == [0, 0]
        assert spare.message()["role"] == "member"
        assert spare.message()["inplace_restarts"] == 0
