"""LocalCluster alone: processes look like pods, slots like nodes, and a new operator process goes on."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from trainrun_operator.cluster import Key
from trainrun_operator.local.disk import write_json
from trainrun_operator.local.layout import RunDir
from trainrun_operator.local.local_cluster import LocalCluster

RUN, JOB = Key("default", "r"), Key("default", "r-a0")


@pytest.fixture
def make(workdir: Path) -> Iterator[Callable[..., LocalCluster]]:
    """Start a cluster on the workdir; call it again for the next operator process."""
    run_dir = RunDir(workdir / "r")
    run_dir.make()
    started: list[LocalCluster] = []

    def start(nodes: int = 2) -> LocalCluster:
        manifest = {"kind": "TrainingRun", "metadata": {"name": "r"}, "spec": {}}
        write_json(run_dir.desired, {"manifest": manifest, "folder": str(workdir), "nodes": nodes})
        cluster = LocalCluster(run_dir, lambda: datetime.fromtimestamp(time.time(), UTC), journal=lambda record: None)
        cluster.start()
        started.append(cluster)
        return cluster

    yield start
    for cluster in started:
        cluster.stop()  # stopping twice is allowed


def job(program: str, *, replicas: int = 1, affinity: dict | None = None, grace: int = 30) -> dict:
    """A PyTorchJob whose pods run a Python program as a user's own command."""
    container = {
        "name": "pytorch", "image": "i", "command": ["python3", "agent.pyz", "--", sys.executable, "-c", program],
        "env": [{"name": "TRAINRUN_RUN", "value": "r"}, {"name": "ME", "value": "$(TRAINRUN_RUN)"}],
    }  # fmt: skip
    spec: dict[str, Any] = {"containers": [container], "terminationGracePeriodSeconds": grace}
    if affinity:
        spec["affinity"] = affinity
    template = {"metadata": {"labels": {"trainrun.dev/run": "r"}}, "spec": spec}
    worker = {"replicas": replicas, "restartPolicy": "Never", "template": template}
    return {
        "kind": "PyTorchJob",
        "metadata": {"name": "r-a0", "labels": {"trainrun.dev/run": "r"}},
        "spec": {
            "runPolicy": {"cleanPodPolicy": "Running"},
            "elasticPolicy": {"minReplicas": replicas, "maxReplicas": replicas},
            "pytorchReplicaSpecs": {"Worker": worker},
        },
    }


def eventually(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait for a truthy answer; the last one is the failure's message."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not in {seconds} s"
        time.sleep(0.02)


def phases(cluster: LocalCluster) -> dict[str, str]:
    return {p["metadata"]["name"]: p["status"]["phase"] for p in cluster.list_pods(RUN)}


def pid_of(workdir: Path, cluster: LocalCluster, index: int = 0) -> int:
    """Pid of the agent of a pod."""
    uid = next(p["metadata"]["uid"] for p in cluster.list_pods(RUN) if p["metadata"]["name"].endswith(str(index)))
    record = json.loads((RunDir(workdir / "r").pods / uid / "record.json").read_text())
    return int(record["process"]["pid"])


def test_a_pod_runs_and_its_end_is_told_as_by_a_kubelet(make: Callable[..., LocalCluster], workdir: Path) -> None:
    """Exit code, termination message, log and job condition are there after the program's end."""
    cluster = make()
    cluster.create_job(job("import os; print('hello', os.environ['ME'], os.getcwd())"))
    eventually(lambda: phases(cluster) == {"r-a0-worker-0": "Succeeded"})
    terminated = cluster.list_pods(RUN)[0]["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (0, "Completed")
    assert json.loads(terminated["message"])["exit_code"] == 0
    assert f"hello r {workdir}" in (workdir / "r/logs/r-a0-worker-0.log").read_text()
    eventually(lambda: cluster.get_job(JOB)["status"]["conditions"][-1]["type"] == "Succeeded")


def test_failure_carries_the_programs_exit_code(make: Callable[..., LocalCluster]) -> None:
    """A user's exit code reaches the pod status, as a program error."""
    cluster = make()
    cluster.create_job(job("raise SystemExit(7)"))
    eventually(lambda: phases(cluster) == {"r-a0-worker-0": "Failed"})
    terminated = cluster.list_pods(RUN)[0]["status"]["containerStatuses"][0]["state"]["terminated"]
    assert terminated["reason"] == "Error" and terminated["exitCode"] != 0


def test_killed_pod_process_is_a_failed_pod_with_137(make: Callable[..., LocalCluster], workdir: Path) -> None:
    """SIGKILL of the agent looks like an out-of-memory kill, and nothing of the pod lives on."""
    cluster = make()
    cluster.create_job(job("import time; time.sleep(600)"))
    eventually(lambda: phases(cluster) == {"r-a0-worker-0": "Running"})
    os.kill(pid_of(workdir, cluster), signal.SIGKILL)
    eventually(lambda: phases(cluster) == {"r-a0-worker-0": "Failed"})
    terminated = cluster.list_pods(RUN)[0]["status"]["containerStatuses"][0]["state"]["terminated"]
    assert terminated["exitCode"] == 137


def test_pods_without_a_slot_wait_with_the_schedulers_words(make: Callable[..., LocalCluster]) -> None:
    """One pod per slot; nodes that affinity excludes are counted apart."""
    cluster = make(nodes=2)
    expression = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["slot-0"]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    cluster.create_job(job("import time; time.sleep(600)", replicas=2, affinity=affinity))
    eventually(lambda: sorted(phases(cluster).values()) == ["Pending", "Running"])
    waiting = next(p for p in cluster.list_pods(RUN) if p["status"]["phase"] == "Pending")
    condition = next(c for c in waiting["status"]["conditions"] if c["type"] == "PodScheduled")
    assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")
    assert condition["message"] == (
        "0/2 nodes are available: 1 Insufficient slots, 1 node(s) didn't match Pod's node affinity/selector."
    )


def test_next_operator_process_adopts_living_pods(make: Callable[..., LocalCluster], workdir: Path) -> None:
    """The same process goes on, and its end is seen by a cluster that is not its parent."""
    first = make()
    first.create_job(job("import time, pathlib; \nwhile not pathlib.Path('go').exists(): time.sleep(0.05)"))
    eventually(lambda: phases(first) == {"r-a0-worker-0": "Running"})
    pid = pid_of(workdir, first)
    first.stop()
    second = make()
    assert (phases(second), pid_of(workdir, second)) == ({"r-a0-worker-0": "Running"}, pid)
    (workdir / "go").touch()
    eventually(lambda: phases(second) == {"r-a0-worker-0": "Succeeded"})


def test_pod_started_just_before_a_crash_is_found_without_its_record(
    make: Callable[..., LocalCluster], workdir: Path
) -> None:
    """Dying between the start of a process and the note of its pid must not make a second process."""
    first = make()
    first.create_job(job("import time; time.sleep(600)"))
    eventually(lambda: phases(first) == {"r-a0-worker-0": "Running"})
    pid = pid_of(workdir, first)
    first.stop()
    uid = first.list_pods(RUN)[0]["metadata"]["uid"]
    (RunDir(workdir / "r").pods / uid / "record.json").unlink()
    second = make()
    assert pid_of(workdir, second) == pid


def test_pod_that_died_without_an_operator_is_lost_to_the_next_one(
    make: Callable[..., LocalCluster], workdir: Path
) -> None:
    """No exit code can be had of a stranger that left no message: a kubelet says ContainerStatusUnknown."""
    first = make()
    first.create_job(job("import time; time.sleep(600)"))
    eventually(lambda: phases(first) == {"r-a0-worker-0": "Running"})
    first.stop()
    os.kill(pid_of(workdir, first), signal.SIGKILL)
    second = make()
    eventually(lambda: phases(second) == {"r-a0-worker-0": "Failed"})
    terminated = second.list_pods(RUN)[0]["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (137, "ContainerStatusUnknown")


def test_graceful_deletion_lets_the_program_end_then_kills(make: Callable[..., LocalCluster], workdir: Path) -> None:
    """SIGTERM first; a program that ignores it is killed when the grace is over; the object goes last."""
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
    cluster = make()
    cluster.create_job(job(stubborn, grace=30))
    log = workdir / "r/logs/r-a0-worker-0.log"
    eventually(lambda: log.exists() and "ready" in log.read_text())
    pid = pid_of(workdir, cluster)
    job_uid = cluster.get_job(JOB)["metadata"]["uid"]
    cluster.delete_job(JOB, uid=job_uid)
    pod = cluster.list_pods(RUN)[0]
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 30
    cluster.delete_pod(Key("default", "r-a0-worker-0"), uid=pod["metadata"]["uid"], grace_seconds=1)
    eventually(lambda: cluster.list_pods(RUN) == [])
    assert not Path(f"/proc/{pid}/exe").exists()
    assert [p["metadata"]["uid"] for p in cluster.departed_pods(RUN)] == [pod["metadata"]["uid"]]


def test_lost_slot_looks_like_a_vanished_node_and_comes_back_as_a_new_one(
    make: Callable[..., LocalCluster], workdir: Path
) -> None:
    """Phase stays Running, the agent is blind, the node turns NotReady, then a node of another name joins."""
    cluster = make(nodes=1)
    cluster.create_job(job("import time; time.sleep(600)"))
    eventually(lambda: phases(cluster) == {"r-a0-worker-0": "Running"})
    pod, pid = cluster.list_pods(RUN)[0], pid_of(workdir, cluster)
    eventually(lambda: cluster.fetch_progress(pod, timeout_seconds=1).record is not None)
    (RunDir(workdir / "r").lost_nodes / "slot-0").touch()
    eventually(lambda: not Path(f"/proc/{pid}/exe").exists())
    eventually(lambda: cluster.list_nodes()[0]["status"]["conditions"][0]["status"] == "Unknown")
    assert phases(cluster) == {"r-a0-worker-0": "Running"}
    assert cluster.fetch_progress(pod, timeout_seconds=1).blind_because == "no-route"
    eventually(lambda: [n["metadata"]["name"] for n in cluster.list_nodes()] == ["slot-0-r1"])
    eventually(
        lambda: cluster.list_pods(RUN) == [] or cluster.list_pods(RUN)[0]["metadata"]["uid"] != pod["metadata"]["uid"]
    )


def test_value_that_only_a_cluster_has_is_told_as_the_containers_state(make: Callable[..., LocalCluster]) -> None:
    """A Secret in the environment cannot be had here, and the pod says so instead of starting without it."""
    cluster, wanted = make(), job("pass")
    secret = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    wanted["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["env"].append(secret)
    cluster.create_job(wanted)

    def waiting() -> Any:
        pods = cluster.list_pods(RUN)
        states = [s["state"] for p in pods for s in p["status"].get("containerStatuses", [])]
        return states and states[0].get("waiting")

    state = eventually(waiting)
    assert state["reason"] == "CreateContainerConfigError"
    assert state["message"].startswith("environment variable TOKEN comes from secretKeyRef")
