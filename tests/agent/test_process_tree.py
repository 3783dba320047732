"""When a process of the chain dies, nothing of the pod lives on; when the pod ends, nothing is left."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from trainrun_trainer.agent import proctree

from tests.agent.pods import Pod, is_alive, small_launcher, started, until

SURVIVAL_SECONDS = 2.0
"""The design's limit for a worker without its agent or launcher."""

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("ready", flush=True)
time.sleep(600)
"""
"""A user's program that ignores SIGTERM and has a child in a session of its own, as torchrun's workers are."""


def parts(pod: Pod) -> dict[str, int]:
    """Pids by role of a pod under our own launcher with running workers; empty while they start."""
    worker, launcher = pod.file("rank1.json").get("pid"), pod.file("launcher.json").get("pid")
    parent_of = proctree.parents()
    if worker not in parent_of or launcher not in parent_of:
        return {}
    server = parent_of[worker]
    starter = parent_of[server]
    keeper = parent_of[starter]
    assert parent_of[keeper] == pod.process.pid
    return {"keeper": keeper, "starter": starter, "fork server": server, "launcher": launcher, "agent": pod.process.pid}


@contextmanager
def handles(pids: list[int]) -> Iterator[dict[int, int]]:
    """The pid of each handle (pidfd); unlike a pid, a handle never comes to mean another process."""
    with ExitStack() as stack:
        opened = dict[int, int]()
        for pid in pids:
            with suppress(ProcessLookupError):  # it has ended by itself since the look
                handle = os.pidfd_open(pid)
                stack.callback(os.close, handle)
                opened[handle] = pid
        yield opened


def outlasting(held: dict[int, int], seconds: float) -> list[int]:
    """Pids of those that are alive after so long. The last look begins then: a test that is itself held up must not
    call alive what has long been dead."""
    poller, left = select.poll(), dict(held)
    for handle in left:
        poller.register(handle, select.POLLIN)
    end = time.monotonic() + seconds
    while left:
        remaining = end - time.monotonic()
        for handle, _ in poller.poll(1000 * max(0.0, remaining)):
            poller.unregister(handle)
            del left[handle]
        if remaining <= 0:
            break
    return sorted(left.values())


@pytest.mark.parametrize("victim", ["agent", "keeper", "starter", "fork server", "launcher"])
def test_no_process_outlives_a_kill_of_its_guardians(tmp_path: Path, victim: str) -> None:
    """kill -9 of any link of the chain: within two seconds nothing of the pod is alive, and the agent says why."""
    with started(tmp_path, small_launcher(), 1, 2, TEST_STEPS="100000") as (pod,):
        chain = pod.until("workers run", lambda: pod.file("rank1.json").get("step") and parts(pod))
        tree = pod.tree()
        assert set(chain.values()) <= {pod.process.pid, *tree}
        with handles(tree) as held:
            os.kill(chain[victim], signal.SIGKILL)
            assert outlasting(held, SURVIVAL_SECONDS) == []
        if victim != "agent":
            assert pod.wait() == 1
            assert pod.message()["cause"] == "ProgramError"
            assert "left no result" in pod.message()["message"]


def test_a_kill_of_the_agent_takes_a_users_program_in_other_sessions_too(tmp_path: Path) -> None:
    """Sessions and ignored signals do not help a process to outlive its pod."""
    with started(tmp_path, [sys.executable, "-c", STUBBORN]) as (pod,):
        pod.until("the program runs", lambda: "ready" in pod.log())
        tree = pod.tree()
        assert len(tree) >= 3
        with handles(tree) as held:
            os.kill(pod.process.pid, signal.SIGKILL)
            assert outlasting(held, SURVIVAL_SECONDS) == []


def test_a_program_that_ends_leaves_no_orphan(tmp_path: Path) -> None:
    """What a command started in the background ends with the pod."""
    program = (
        "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid)"
    )
    with started(tmp_path, [sys.executable, "-c", program]) as (pod,):
        assert pod.wait() == 0
        assert not is_alive(int(pod.log().split()[0]))


def test_orphans_are_reaped(tmp_path: Path) -> None:
    """A pod's first process inherits orphans; they must not stay as zombies."""
    program = (
        "import subprocess, sys, time\n"
        "subprocess.run(['/bin/sh', '-c', 'for i in 1 2 3 4 5; do sleep 0.05 & done'])\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    with started(tmp_path, [sys.executable, "-c", program]) as (pod,):
        pod.until("the program runs", lambda: "ready" in pod.log())
        until("no zombie is below the pod", lambda: not zombies(pod.process.pid), 5)


def zombies(root: int) -> list[int]:
    """Ended but unreaped processes whose chain of parents leads to `root`."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, parent = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()[:2]
        except OSError:
            continue
        if state == b"Z" and int(parent) in {root, *proctree.descendants(root)}:
            found.append(int(name))
    return found


def test_descendants_are_found_parents_first() -> None:
    """The walk needs no order of pids, and other trees are left alone."""
    parent_of = {10: 1, 5: 10, 7: 5, 8: 5, 3: 7, 99: 1}
    assert proctree.descendants(10, parent_of) == [5, 7, 8, 3]
