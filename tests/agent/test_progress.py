"""What the agent answers: ages, the run's view from worker 0, other versions, metrics."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from trainrun_api.contract import Progress
from trainrun_trainer.agent import files, metrics
from trainrun_trainer.agent.progress import StepClock, pod_progress, run_progress
from trainrun_trainer.agent.sampling import Sampler, network_bytes
from trainrun_trainer.agent.server import Server

from tests.agent.pods import small_launcher, started

AGENT_BYTES = 60 * 2**20
"""It runs beside the training: seen are 17 to 23 MiB, with its server and its samples."""
IDENTITY: dict[str, Any] = {"run": "r", "attempt": 1, "stage": "train", "pod_index": 0}


def record(rank: int, local_rank: int, **more: Any) -> dict[str, Any]:
    """A rank's file as the trainer writes it."""
    return {
        "schema": 1, "rank": rank, "local_rank": local_rank, "pid": 100 + rank, "phase": "training", "step": 7,
        "step_monotonic": 50.0, "written_monotonic": 51.0, **more,
    }  # fmt: skip


def asked(records: list[dict[str, Any]], now: float, launcher: dict[str, Any] | None = None, **more: Any) -> Any:
    """A pod's answer."""
    return pod_progress(IDENTITY, records, launcher or {}, more.get("samples", {}), more.get("clock", StepClock()), now)


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
def test_every_address_is_answered(address: str) -> None:
    """A cluster may have IPv4, IPv6 or both."""
    server = Server("", 0, lambda whole: {"step": 7}, lambda: "")
    server.start()
    try:
        with urllib.request.urlopen(f"http://{address}:{server.server_port}/progress") as answer:
            assert json.load(answer) == {"step": 7}
    finally:
        server.shutdown()
        server.server_close()


def test_ages_grow_without_a_new_record() -> None:
    """They are computed when asked, so a hung worker is seen to stand still."""
    durable = {"step": 5, "claim": 2, "committed_monotonic": 40.0}
    records = [record(0, 0, durable_checkpoint=durable)]
    early, late = asked(records, 60.0), asked(records, 75.5)
    assert (early["step_age_seconds"], late["step_age_seconds"]) == (10.0, 25.5)
    assert early["durable_checkpoint"] == {"step": 5, "claim": 2, "age_seconds": 20.0}
    assert late["durable_checkpoint"]["age_seconds"] == 35.5
    assert Progress.from_dict(late).step == 7


def test_a_program_that_tells_no_instant_ages_from_the_first_sight_of_its_step() -> None:
    """A user's program may write only its step."""
    clock, plain = StepClock(), {"step": 3, "local_rank": 0}
    assert asked([plain], 10.0, clock=clock)["step_age_seconds"] == 0.0
    assert asked([plain], 14.0, clock=clock)["step_age_seconds"] == 4.0
    assert asked([{**plain, "step": 4}], 15.0, clock=clock)["step_age_seconds"] == 0.0


def test_a_pod_without_records_is_starting_and_reports_no_step() -> None:
    """Unknown is told as unknown."""
    answer = asked([], 10.0)
    assert (answer["phase"], answer["step"], answer["step_age_seconds"], answer["workers"]) == (
        "starting",
        None,
        None,
        [],
    )


def test_fields_of_another_version_are_dropped_and_missing_ones_take_defaults() -> None:
    """Upgrade and rollback happen in mid-run; the schema that was written is passed on."""
    answer = asked([record(0, 0, schema=2, loss=0.5, invented_later=[1])], 60.0)
    assert "invented_later" not in answer
    assert (answer["schema"], answer["loss"], answer["tokens"]) == (2, 0.5, None)


def test_a_new_generation_is_starting_until_its_workers_write() -> None:
    """The dead generation's file still says `training`."""
    answer = asked([record(0, 0, generation=0)], 60.0, {"generation": 1, "inplace_restarts": 1})
    assert (answer["phase"], answer["generation"], answer["inplace_restarts"]) == ("starting", 1, 1)
    answer = asked([record(0, 0, generation=1)], 60.0, {"generation": 1, "inplace_restarts": 1})
    assert answer["phase"] == "training"


def test_the_runs_view_takes_rank_zero_wherever_it_is() -> None:
    """Worker 0 need not host rank 0; ages go on while the peer's answer lies here."""
    own = asked([record(1, 0, loss=None)], 60.0)
    peer = asked(
        [record(0, 0, loss=2.5, step_monotonic=58.0, durable_checkpoint={"step": 5, "age_seconds": 1.0})], 60.0
    )
    peer["workers"][0]["pod_index"] = 1
    whole = run_progress(own, {1: (peer, 4.0), 2: ({"workers": []}, 9.0)})
    assert (whole["loss"], whole["step_age_seconds"]) == (2.5, 6.0)
    assert whole["durable_checkpoint"]["age_seconds"] == 5.0
    assert [w["pod_index"] for w in whole["workers"]] == [0, 1]
    assert whole["heard"] == {"1": 4.0, "2": 9.0}


@pytest.mark.parametrize("order", [(1, 2), (2, 1)], ids=["in order", "the other was heard first"])
def test_who_took_over_speaks_and_not_who_was_cut_off(order: tuple[int, int]) -> None:
    """Both have rank 0, of which one says for ever what it said last; a spare that waits says nothing."""
    own = asked([record(1, 0, generation=2)], 60.0, {"generation": 2, "inplace_restarts": 2})
    silent = asked([record(0, 0, step=172, generation=1)], 60.0, {"generation": 1, "inplace_restarts": 1})
    taker = asked([record(0, 0, step=163, generation=2)], 60.0, {"generation": 2, "inplace_restarts": 2})
    answers = {1: (taker, 1.0), 2: (silent, 64.0)}
    spare = asked([], 60.0, {"generation": 3})
    whole = run_progress(own, {**{index: answers[index] for index in order}, 3: (spare, 1.0)})
    assert (whole["step"], whole["generation"], whole["step_age_seconds"]) == (163, 2, 11.0)
    behind = asked([record(1, 0, step=172, generation=1)], 60.0, {"generation": 1})
    assert run_progress(behind, {index: answers[index] for index in order})["step"] == 163


def test_who_was_cut_off_before_its_first_step_does_not_speak_for_those_that_made_it() -> None:
    """Rank 0's pod was asked last while it started. Without this the run would be given the time of a start."""
    own = asked([record(1, 0, step=12)], 60.0, {"generation": 1})
    silent = asked([record(0, 0, step=None, step_monotonic=None, phase="starting")], 60.0, {"generation": 1})
    whole = run_progress(own, {1: (silent, 70.0)})
    assert (whole["step"], whole["phase"]) == (12, own["phase"])
    assert whole["step_age_seconds"] == own["step_age_seconds"] is not None
    assert whole["heard"] == {"1": 70.0}
    assert run_progress(silent, {1: (own, 1.0)})["step"] == 12


def test_pods_answer_for_themselves_and_worker_zero_for_the_run(tmp_path: Path) -> None:
    """Over HTTP, with real workers: a held step grows old, and every worker shows activity and memory."""
    acts = [{"rank": 1, "step": 5, "do": "hang"}]
    env = {"TEST_STEPS": "9", "TEST_ACT": json.dumps(acts)}
    with started(tmp_path, small_launcher(), pods=2, **env) as (first, second):
        first.until("both answer", lambda: {answer_code(p, "/progress") for p in (first, second)} == {200})
        first.until("both pods are heard", lambda: len(json.loads(first.get("/progress"))["workers"]) == 2)
        first.until("the hang", lambda: json.loads(first.get("/progress"))["step"] == 5)
        before, sent = json.loads(first.get("/progress")), time.monotonic()
        first.until("time passes", lambda: time.monotonic() - sent > 1)
        after = json.loads(first.get("/progress"))
        assert after["step"] == before["step"] == 5
        assert after["step_age_seconds"] >= before["step_age_seconds"] + 1
        assert set(after["heard"]) == {"1"}
        first.until(
            "samples of both", lambda: all("memory_bytes" in w for w in json.loads(first.get("/progress"))["workers"])
        )
        alone = json.loads(second.get("/progress"))
        assert [w["pod_index"] for w in alone["workers"]] == [1]
        assert 'trainrun_step{run="small",attempt="2",pod_index="1"} 5' in second.get("/metrics")
        assert 0 < highest_memory_bytes(first.process.pid) < AGENT_BYTES


def highest_memory_bytes(pid: int) -> int:
    """Of one process, so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def test_metrics_leave_out_what_is_unknown() -> None:
    """An absent series is better than a false zero."""
    text = metrics.render(asked([], 10.0), 3)
    assert "trainrun_loss" not in text
    assert 'trainrun_inplace_restarts{run="r",attempt="1",pod_index="3"} 0' in text


def test_cpu_time_counts_as_activity(tmp_path: Path) -> None:
    """A busy process shows it; a process that is gone shows nothing."""
    now = [0.0]
    sampler = Sampler(clock=lambda: now[0])
    sampler.sample({0: os.getpid(), 1: 2**22 + 1})
    spent = time.process_time()
    while time.process_time() < spent + 0.2:
        sum(range(1000))
    now[0] = 0.4
    sampler.sample({0: os.getpid(), 1: 2**22 + 1})
    assert 0.4 <= sampler.latest[0]["device_activity"] <= 1.0
    assert sampler.latest[0]["memory_bytes"] > 1_000_000
    assert sampler.latest[1] == {}


def test_network_counters_add_fabric_and_interfaces_but_loopback(tmp_path: Path) -> None:
    """EFA traffic does not pass the kernel's interfaces."""
    counters = {
        "net/lo/statistics/rx_bytes": 1000,
        "net/eth0/statistics/rx_bytes": 1,
        "net/eth0/statistics/tx_bytes": 2,
        "infiniband/rdmap0/ports/1/hw_counters/tx_bytes": 10,
        "infiniband/rdmap0/ports/1/hw_counters/rdma_read_bytes": 20,
    }
    for name, value in counters.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    assert network_bytes(str(tmp_path)) == 33
    assert network_bytes(str(tmp_path / "none")) is None


def test_another_path_is_told_what_there_is(tmp_path: Path) -> None:
    """A person with a browser finds the way."""
    with started(tmp_path, [sys.executable, "-c", "import time; time.sleep(600)"]) as (pod,):
        pod.until("it answers", lambda: answer_code(pod, "/progress") == 200)
        assert answer_code(pod, "/") == 404


def answer_code(pod: Any, path: str) -> int:
    """HTTP status, 0 when nobody answers."""
    try:
        pod.get(path)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
    return 200


def test_a_program_that_writes_nonsense_does_not_silence_its_pod(tmp_path: Path) -> None:
    """A user's program writes the file too: what has a wrong type is unknown, the rest is told."""
    (tmp_path / "rank0.json").write_text('{"step": "seven", "total_steps": 9, "pid": true, "loss": NaN, "rank": [0]}')
    (tmp_path / "rank1.json").write_text("not json")
    (tmp_path / "rank2.json").write_text('["a list"]')
    (tmp_path / "rank3.json").write_text('{"step": 4, "durable_checkpoint": 5, "seconds_by_class": null}')
    answer = asked(files.rank_records(str(tmp_path)), 10.0)
    assert (answer["step"], answer["total_steps"], answer["loss"]) == (None, 9, None)
    assert [w["local_rank"] for w in answer["workers"]] == [0, 3]
    assert json.loads(json.dumps(answer, allow_nan=False))["durable_checkpoint"] is None
