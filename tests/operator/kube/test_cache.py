"""The cache shows what the watches have shown, and mends what they have missed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from trainrun_api.contract import Label
from trainrun_operator.cluster import Key, Object, WatchEvent
from trainrun_operator.kube.cache import Cache
from trainrun_operator.kube.departed import EVIDENCE_SECONDS
from trainrun_operator.kube.trim import trimmed
from trainrun_operator.testing import FakeClock

RUN = Key("ns", "a")


def pod(name: str = "p", uid: str = "u", version: int = 1, **status: Any) -> Object:
    metadata = {
        "name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(version), "labels": {Label.RUN: "a"},
        "managedFields": [{"manager": "kubelet"}],
    }  # fmt: skip
    return {"metadata": metadata, "spec": {"nodeName": "n"}, "status": {"phase": "Running", **status}}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cache(clock: FakeClock) -> Cache:
    return Cache(clock.monotonic)


@pytest.fixture
def heard(cache: Cache) -> list[WatchEvent]:
    heard: list[WatchEvent] = []
    cache.subscribe(heard.append)
    return heard


def names(objects: list[Object]) -> list[str]:
    return [obj["metadata"]["name"] for obj in objects]


def test_objects_are_found_by_run_and_told_to_listeners(cache: Cache, heard: list[WatchEvent]) -> None:
    """First ADDED, then MODIFIED."""
    cache.put("Pod", pod(phase="Pending"))
    cache.put("Pod", pod(version=2))
    assert names(cache.of_run("Pod", RUN)) == names(cache.all("Pod")) == ["p"]
    assert cache.of_run("Pod", Key("ns", "b")) == []
    assert [event.type for event in heard] == ["ADDED", "MODIFIED"]


@pytest.mark.parametrize("version", [4, 5], ids=["older", "same"])
def test_old_news_is_no_news(cache: Cache, heard: list[WatchEvent], version: int) -> None:
    """A list that was read before the watch's last word does not turn time back."""
    cache.put("Pod", pod(version=5))
    assert not cache.put("Pod", pod(version=version, phase="Pending"))
    assert cache.all("Pod")[0]["status"]["phase"] == "Running"
    assert len(heard) == 1


def node(version: int, status: str = "True", beat: str = "2026-01-01T00:00:00Z") -> Object:
    pressure = {"type": "DiskPressure", "status": "False", "lastHeartbeatTime": beat}
    ready = {"type": "Ready", "status": status, "lastHeartbeatTime": beat}
    metadata = {"name": "n", "uid": "u", "resourceVersion": str(version)}
    return {"metadata": metadata, "status": {"conditions": [pressure, ready]}}


def test_a_heartbeat_of_a_ready_node_is_no_news(cache: Cache, heard: list[WatchEvent]) -> None:
    """The list of all nodes stays the very same, so that nobody parses it again; older states are still refused."""
    cache.put("Node", node(1))
    nodes = cache.all("Node")
    assert not cache.put("Node", node(5, beat="2026-01-01T00:05:00Z"))
    assert cache.all("Node") is nodes
    assert len(heard) == 1
    assert not cache.put("Node", node(4, status="False"))
    assert cache.put("Node", node(6, status="False"))
    assert cache.all("Node") is not nodes


def test_a_heartbeat_of_a_node_that_is_not_ready_is_news(cache: Cache, heard: list[WatchEvent]) -> None:
    """After an outage of the API it tells that what is said of the node holds."""
    cache.put("Node", node(1, status="False"))
    assert cache.put("Node", node(2, status="False", beat="2026-01-01T00:05:00Z"))
    assert len(heard) == 2


def test_last_sight_of_a_deleted_pod_is_kept_for_ten_minutes(cache: Cache, clock: FakeClock) -> None:
    """With what its container said; no longer."""
    ended = {"name": "pytorch", "state": {"terminated": {"exitCode": 30, "message": "{}"}}}
    cache.put("Pod", pod())
    cache.drop("Pod", pod(version=2, containerStatuses=[ended]))
    assert cache.all("Pod") == []
    (last,) = cache.departed(RUN)
    assert last["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 30
    clock.advance(EVIDENCE_SECONDS)
    assert cache.departed(RUN)
    clock.advance(1)
    assert not cache.departed(RUN)


def test_late_deletion_of_a_namesake_removes_nothing(cache: Cache) -> None:
    """The watch may tell of the old pod's end after the new one's begin; the old one is evidence."""
    cache.put("Pod", pod(uid="old", version=1))
    cache.put("Pod", pod(uid="new", version=3))
    cache.drop("Pod", pod(uid="old", version=2))
    assert [p["metadata"]["uid"] for p in cache.of_run("Pod", RUN)] == ["new"]
    assert [p["metadata"]["uid"] for p in cache.departed(RUN)] == ["old"]


def test_complete_list_finds_missed_deletions(cache: Cache, heard: list[WatchEvent]) -> None:
    """What a cut watch did not tell is told now; what is newer than the list stays."""
    cache.put("Pod", pod("gone", "1", version=1))
    cache.put("Pod", pod("kept", "2", version=2))
    cache.put("Pod", pod("newer", "3", version=9))
    assert cache.replace_all("Pod", [pod("kept", "2", version=2)], "5") == 1
    assert names(cache.all("Pod")) == ["kept", "newer"]
    assert [(e.type, e.object["metadata"]["name"]) for e in heard[3:]] == [("DELETED", "gone")]


def test_age_of_news_is_told_by_kind(cache: Cache, clock: FakeClock) -> None:
    """Only for kinds that were ever seen."""
    cache.replace_all("Node", [], "1")
    clock.advance(7)
    assert cache.ages_seconds() == {"Node": 7.0}


def test_trimming_keeps_what_rules_read_and_is_idempotent() -> None:
    """Managed fields go; of the environment only what tells whose pod it is."""
    big = pod()
    big["spec"]["containers"] = [
        {"name": "pytorch", "image": "i", "args": ["x" * 1000],
         "env": [{"name": "TRAINRUN_RUN_UID", "value": "u"}, {"name": "TRAINRUN_CONFIG", "value": "x" * 1000}]}
    ]  # fmt: skip
    small = trimmed("Pod", big)
    assert "managedFields" not in small["metadata"]
    container = {"name": "pytorch", "image": "i", "env": [{"name": "TRAINRUN_RUN_UID", "value": "u"}]}
    assert small["spec"] == {"nodeName": "n", "containers": [container]}
    assert trimmed("Pod", small) == small


def test_of_annotations_only_hyperpods_fault_details_are_kept() -> None:
    """And only on nodes; a node without them stays as small as before."""
    details = {"sagemaker.amazonaws.com/fault-details": "[]"}
    node = {"metadata": {"name": "n", "annotations": {"csi.volume.kubernetes.io/nodeid": "x", **details}}}
    small = trimmed("Node", node)
    assert small["metadata"] == {"name": "n", "annotations": details}
    assert trimmed("Node", small) == small
    plain = {"metadata": {"name": "n", "annotations": {"csi.volume.kubernetes.io/nodeid": "x"}}}
    assert trimmed("Node", plain)["metadata"] == {"name": "n"}
    assert "annotations" not in trimmed("Pod", {"metadata": {"name": "p", "annotations": details}})["metadata"]


def run(version: int, path: object = "/checkpoints/a/", uid: str = "r") -> Object:
    metadata = {"name": "a", "namespace": "ns", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"checkpoint": {"path": path}}, "status": {"phase": f"P{version}"}}


def test_what_we_wrote_ourselves_is_no_news(cache: Cache, heard: list[WatchEvent]) -> None:
    """Neither when it is noted nor when the watch repeats it; what comes later is."""
    cache.put("TrainingRun", run(1))
    cache.note("TrainingRun", run(2))
    assert not cache.put("TrainingRun", run(2))
    known = cache.get("TrainingRun", RUN)
    assert known is not None
    assert known["status"] == {"phase": "P2"}
    assert len(heard) == 1
    assert cache.put("TrainingRun", run(3))


@pytest.mark.parametrize(
    ("version", "uid"), [(3, "another"), (1, "r")], ids=["of a run that had the name", "older than the watch"]
)
def test_a_note_never_turns_time_back(cache: Cache, version: int, uid: str) -> None:
    """The watch may be quicker than the answer to our write."""
    cache.note("TrainingRun", run(1))
    assert cache.get("TrainingRun", RUN) is None
    cache.put("TrainingRun", run(2))
    cache.note("TrainingRun", run(version, uid=uid))
    known = cache.get("TrainingRun", RUN)
    assert known is not None
    assert known["metadata"]["resourceVersion"] == "2"


def test_runs_are_found_by_their_checkpoint_path(cache: Cache) -> None:
    """Whatever it ends with, and only as long as it is so; nonsense is at no path."""
    cache.put("TrainingRun", run(1))
    assert names(cache.at_path("/checkpoints/a")) == ["a"]
    cache.put("TrainingRun", run(2, "/b"))
    assert (cache.at_path("/checkpoints/a"), names(cache.at_path("/b"))) == ([], ["a"])
    cache.put("TrainingRun", run(3, path=7))
    assert cache.at_path("/b") == []


def test_a_list_is_sorted_once_per_change(cache: Cache) -> None:
    """Readers tell by its identity that nothing has changed."""
    cache.put("Pod", pod())
    first = cache.all("Pod")
    assert cache.all("Pod") is first
    cache.put("Pod", pod("o", "v"))
    assert names(cache.all("Pod")) == ["o", "p"]
    assert names(first) == ["p"]


def test_the_watchs_echo_is_a_sign_of_life(cache: Cache, clock: FakeClock) -> None:
    """Its age does not grow although all that changes is written by us."""
    cache.put("TrainingRun", run(1))
    cache.note("TrainingRun", run(2))
    clock.advance(60)
    cache.put("TrainingRun", run(2))
    assert cache.ages_seconds() == {"TrainingRun": 0}


def test_equal_strings_of_objects_are_one() -> None:
    """Keys and short values of 8,000 pods, each decoded for itself."""
    one, other = (trimmed("Pod", json.loads(json.dumps(pod(conditions=[{"type": "Ready"}])))) for _ in range(2))
    assert one == other
    assert one["status"]["phase"] is other["status"]["phase"]
    labels = [next(iter(small["metadata"]["labels"])) for small in (one, other)]
    assert labels[0] is labels[1]
    long = trimmed("Pod", pod(message="x" * 100))
    assert long["status"]["message"] == "x" * 100
