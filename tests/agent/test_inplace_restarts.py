"""Worker groups that are restarted in place, and those that are not: real launchers, processes and collectives."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.agent.pods import small_launcher, started

KILLS_PER_RANK = 10
"""How often each rank is killed in each layout."""


@pytest.mark.parametrize(("pods", "workers"), [(1, 2), (2, 1)], ids=["one-launcher-two-workers", "two-launchers"])
def test_each_killed_worker_costs_exactly_one_restart(tmp_path: Path, pods: int, workers: int) -> None:
    """Every rank is killed ten times; each time there is one new generation in all pods, and the run ends well."""
    kills = 2 * KILLS_PER_RANK
    acts = [{"generation": g, "rank": g % 2, "step": 2 * g + 2, "do": "kill"} for g in range(kills)]
    env = {"TEST_STEPS": str(2 * kills + 2), "TEST_ACT": json.dumps(acts), "TEST_STORE": str(tmp_path / "store")}
    with started(tmp_path, small_launcher(), pods, workers, **env) as made:
        assert [pod.wait() for pod in made] == [0] * pods
        for pod in made:
            assert pod.message()["inplace_restarts"] == kills
            assert pod.message()["step"] == 2 * kills + 2
        logs = "".join(pod.log() for pod in made)
        for generation in range(kills + 1):  # one line of each of the two ranks
            assert logs.count(f"generation {generation} starts at step {2 * generation}\n") == 2


@pytest.mark.parametrize(
    ("name", "acts", "saves", "restarts", "reason"),
    [
        ("without-checkpoint", [(0, "kill", 2), (1, "kill", 3), (2, "kill", 4)], "0", 2, "brought no new checkpoint"),
        ("same-failure-at-same-step", [(0, "raise", 2), (1, "raise", 2)], "0", 1, "came again at the same step"),
    ],
    ids=["without-checkpoint", "same-failure-at-same-step"],
)
def test_a_budget_that_is_spent_ends_every_launcher(
    tmp_path: Path, name: str, acts: list[tuple[int, str, int]], saves: str, restarts: int, reason: str
) -> None:
    """The launcher that saw the fault says why it does not restart; the others end with it instead of waiting."""
    plan = [{"generation": g, "rank": 1, "step": step, "do": act} for g, act, step in acts]
    with started(
        tmp_path, small_launcher(), pods=2, workers=1, TEST_STEPS="20", TEST_ACT=json.dumps(plan), TEST_SAVES=saves
    ) as made:
        assert [pod.wait() for pod in made] == [1, 1]
        messages = [pod.message() for pod in made]
        assert sorted(m["cause"] for m in messages) == ["PeerLost", "ProgramError"]
        origin = next(m for m in messages if m["cause"] == "ProgramError")
        assert reason in origin["message"]
        assert origin["inplace_restarts"] == restarts
        assert "hunter2" not in json.dumps(messages)


def test_a_stopped_worker_does_not_delay_the_restart_by_torchelastics_thirty_seconds(tmp_path: Path) -> None:
    """SIGTERM does not end a stopped process; the launcher must not wait for it."""
    acts = [{"generation": 0, "rank": 0, "step": 3, "do": "stop"}]
    with started(tmp_path, small_launcher(), pods=1, workers=2, TEST_STEPS="6", TEST_ACT=json.dumps(acts)) as (pod,):
        pod.until("worker 0 is stopped", lambda: is_stopped(pod.file("rank0.json").get("pid")))
        os.kill(pod.file("rank1.json")["pid"], signal.SIGKILL)
        assert pod.wait(25) == 0
        assert pod.message()["inplace_restarts"] == 1


def is_stopped(pid: int | None) -> bool:
    """Whether a process is there and SIGSTOP holds it."""
    return pid is not None and Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"


def test_one_rank_that_returns_a_contract_code_ends_a_group_that_hangs_without_it(tmp_path: Path) -> None:
    """The peers wait in a collective for ever; the code that was returned is the cause in its pod."""
    acts = [{"rank": 1, "step": 3, "do": 22}]
    with started(tmp_path, small_launcher(), pods=2, workers=1, TEST_STEPS="20", TEST_ACT=json.dumps(acts)) as made:
        codes = [pod.wait() for pod in made]
        messages = [pod.message() for pod in made]
        assert sorted(codes) == [1, 22]
        assert {m["cause"] for m in messages} == {"DeviceOutOfMemory", "PeerLost"}
        assert all(m["inplace_restarts"] == 0 for m in messages)
