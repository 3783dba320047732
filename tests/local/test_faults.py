"""Fault specs, and what a supervisor does when a worker is held."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from trainrun_api.store_files import newest_committed
from trainrun_operator.errors import LocalModeError
from trainrun_operator.local.disk import write_json
from trainrun_operator.local.faults import FORMS, Fault, FaultMaker, Plan, plan_faults
from trainrun_operator.local.layout import RunDir
from trainrun_operator.local.pod_process import POD_FOLDER
from trainrun_operator.local.process import ProcessId


def plan(*specs: str) -> Plan:
    return plan_faults(specs, total_steps=40, world_size=2)


def test_faults_are_ordered_by_step_and_have_lasting_ids() -> None:
    """The id of a fault does not depend on the others, so a second start recognises what has fired."""
    both = plan("lose-node@step=30", "kill-worker@step=10,rank=0")
    assert [str(f) for f in both.faults] == ["kill-worker@step=10,rank=0", "lose-node@step=30"]
    assert both.faults[1] == plan("lose-node@step=30").faults[0]
    twice = plan("kill-worker@step=10", "kill-worker@step=10")
    assert [f.id for f in twice.faults] == ["kill-worker-10", "kill-worker-10.2"]


@pytest.mark.parametrize(
    ("specs", "before"),
    [
        (["corrupt-checkpoint@latest"], "lose-node-20"),
        (["corrupt-checkpoint@latest", "kill-operator@step=30"], "lose-node-20"),
        (["lose-node@step=9", "corrupt-checkpoint@latest", "hang-worker@step=12"], "hang-worker-12"),
        (["kill-worker@step=9", "kill-operator@step=30", "corrupt-checkpoint@latest"], "kill-worker-9"),
        (["kill-worker@step=9"], None),
    ],
    ids=["alone", "beside-one-that-resumes-nothing", "last-resume", "not-the-operators-death", "not-wanted"],
)
def test_corruption_comes_before_the_last_resume(specs: list[str], before: str | None) -> None:
    """Alone it brings its own node loss at half of the steps."""
    assert plan(*specs).corrupt_before == before


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("melt-node@step=3", f"--fault melt-node@step=3 is not known; use {FORMS}"),
        ("lose-node@step=x", f"--fault lose-node@step=x is not known; use {FORMS}"),
        ("corrupt-checkpoint@step=3", f"--fault corrupt-checkpoint@step=3 is not known; use {FORMS}"),
        ("lose-node@step=0", "--fault lose-node@step=0 never happens: the run has steps 1 to 40"),
        ("lose-node@step=41", "--fault lose-node@step=41 never happens: the run has steps 1 to 40"),
        ("kill-worker@step=4,rank=2", "--fault kill-worker@step=4,rank=2 never happens: the run has ranks 0 to 1"),
    ],
    ids=["kind", "step", "corrupt", "zero", "beyond", "rank"],
)
def test_a_fault_that_cannot_be_is_refused_with_a_sentence(spec: str, sentence: str) -> None:
    """Unknown words get the valid forms, impossible numbers the range."""
    with pytest.raises(LocalModeError) as refused:
        plan(spec)
    assert str(refused.value) == sentence


@pytest.fixture
def run_dir(workdir: Path) -> RunDir:
    """An empty run."""
    made = RunDir(workdir / "r")
    made.make()
    return made


@pytest.fixture
def worker(run_dir: RunDir) -> Iterator[subprocess.Popen]:
    """A process that looks like the worker of a pod on slot-1."""
    folder = run_dir.pods / "uid"
    folder.mkdir()
    environment = {**os.environ, POD_FOLDER: str(folder)}
    with subprocess.Popen(["/bin/sleep", "600"], env=environment, start_new_session=True) as process:
        identity = ProcessId.of(process.pid)
        assert identity is not None
        write_json(folder / "record.json", {"process": identity.to_json(), "node": "slot-1"})
        deadline = time.monotonic() + 10
        while b"sleep" not in Path(f"/proc/{process.pid}/cmdline").read_bytes() and time.monotonic() < deadline:
            time.sleep(0.01)
        yield process
        process.kill()


def maker(run_dir: RunDir, *specs: str) -> FaultMaker:
    made = FaultMaker(run_dir, plan(*specs))
    made.arm()
    return made


def hold(run_dir: RunDir, fault_id: str, pid: int) -> None:
    write_json(run_dir.faults / f"{fault_id}.held", {"pid": pid, "attempt": 0, "step": 4})


def test_nothing_happens_until_a_worker_is_held(run_dir: RunDir) -> None:
    """The request is there for the worker; only its answer starts the deed."""
    faults = maker(run_dir, "kill-worker@step=4,rank=1")
    request = json.loads((run_dir.faults / "kill-worker-4-rank1.json").read_text())
    assert request == {"id": "kill-worker-4-rank1", "kind": "kill-worker", "step": 4, "rank": 1}
    assert faults.act(operator_pid=None) == []


def test_a_held_worker_is_killed_once(run_dir: RunDir, worker: subprocess.Popen) -> None:
    """It ends by SIGKILL, the deed is on disk, and a second start does not do it again."""
    faults = maker(run_dir, "kill-worker@step=4")
    hold(run_dir, "kill-worker-4", worker.pid)
    (record,) = faults.act(operator_pid=None)
    assert (record["fault"], record["step"], record["type"]) == ("kill-worker@step=4", 4, "fault")
    assert worker.wait(10) == -signal.SIGKILL
    again = maker(run_dir, "kill-worker@step=4")
    hold(run_dir, "kill-worker-4", worker.pid)
    assert (again.act(operator_pid=None), again.unfired()) == ([], [])


def test_a_hung_worker_lives_and_does_not_move(run_dir: RunDir, worker: subprocess.Popen) -> None:
    """SIGSTOP: state T."""
    faults = maker(run_dir, "hang-worker@step=4")
    hold(run_dir, "hang-worker-4", worker.pid)
    faults.act(operator_pid=None)
    assert Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_lost_node_is_marked_before_its_processes_die(run_dir: RunDir, worker: subprocess.Popen) -> None:
    """Afterwards the node is marked and nothing of the pod lives."""
    faults = maker(run_dir, "lose-node@step=4")
    hold(run_dir, "lose-node-4", worker.pid)
    faults.act(operator_pid=None)
    assert (run_dir.lost_nodes / "slot-1").exists()
    assert worker.wait(10) == -signal.SIGKILL


def test_the_operators_death_spares_the_worker(run_dir: RunDir, worker: subprocess.Popen) -> None:
    """Only the operator process is killed; without one the fault waits."""
    faults = maker(run_dir, "kill-operator@step=4")
    hold(run_dir, "kill-operator-4", worker.pid)
    assert faults.act(operator_pid=None) == []
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as operator:
        faults.act(operator.pid)
        assert operator.wait(10) == -signal.SIGKILL
    assert worker.poll() is None


def test_a_holder_that_died_waiting_is_not_acted_on(run_dir: RunDir, worker: subprocess.Popen) -> None:
    """Its successor will hold again; the pid may belong to a stranger by now."""
    faults = maker(run_dir, "kill-worker@step=4")
    worker.kill()
    worker.wait()
    hold(run_dir, "kill-worker-4", worker.pid)
    assert faults.act(operator_pid=None) == []
    with subprocess.Popen(["/bin/sleep", "600"]) as stranger:
        hold(run_dir, "kill-worker-4", stranger.pid)
        assert faults.act(operator_pid=None) == []
        assert stranger.poll() is None
        stranger.kill()
    assert [f.id for f in faults.unfired()] == ["kill-worker-4"]


def commit(run_dir: RunDir, step: int, claim: int, content: bytes) -> Path:
    folder = run_dir.checkpoints / f"step-{step}-c{claim}"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(content)
    (folder / "manifest.json").write_text("{}")
    return folder


def claim(run_dir: RunDir, k: int, parent: tuple[int, int] | None) -> None:
    claims = run_dir.checkpoints / "claims"
    claims.mkdir(exist_ok=True)
    stated = {"step": parent[0], "claim": parent[1]} if parent else None
    write_json(claims / f"{k}.json", {"k": k, "parent": stated})


def test_corruption_flips_one_byte_of_the_newest_that_counts(run_dir: RunDir, worker: subprocess.Popen) -> None:
    """A later checkpoint of a dead branch is left alone; exactly one byte of one file differs."""
    claim(run_dir, 0, None)
    claim(run_dir, 1, (10, 0))
    commit(run_dir, 10, 0, b"a" * 100)
    commit(run_dir, 20, 0, b"b" * 100)  # committed by claim 0 beyond the parent of claim 1: nobody reads it
    assert newest_committed(run_dir.checkpoints).name == "step-10-c0"
    faults = maker(run_dir, "kill-worker@step=4", "corrupt-checkpoint@latest")
    hold(run_dir, "kill-worker-4", worker.pid)
    corrupted, killed = faults.act(operator_pid=None)
    assert corrupted["message"] == "byte 50 of step-10-c0/model.safetensors flipped"
    content = (run_dir.checkpoints / "step-10-c0/model.safetensors").read_bytes()
    assert (len(content), sum(x != ord("a") for x in content)) == (100, 1)
    assert (run_dir.checkpoints / "step-20-c0/model.safetensors").read_bytes() == b"b" * 100
    assert killed["fault"] == "kill-worker@step=4"


def test_rearming_forgets_requests_that_are_no_longer_made(run_dir: RunDir) -> None:
    """A start without faults after one with faults holds nobody."""
    maker(run_dir, "kill-worker@step=4")
    maker(run_dir)
    assert list(run_dir.faults.iterdir()) == []
    assert Fault("x", "kill-worker", 4, 0).step == 4
