"""The store keeps the API server's promises; FakeCluster and LocalCluster rely on each of them."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from trainrun_operator.cluster import Key, WatchEvent
from trainrun_operator.errors import AlreadyExists, Conflict, NotFound
from trainrun_operator.objects import ObjectKey, ObjectStore

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RUN = Key("default", "r")


def make_store(**options: object) -> ObjectStore:
    return ObjectStore(lambda: NOW, **options)


def thing(kind: str = "TrainingRun", name: str = "r", *, owner: str | None = None, **fields: object) -> dict:
    metadata: dict = {"name": name, "labels": {"run": "r"}}
    if owner:
        metadata["ownerReferences"] = [{"kind": "TrainingRun", "name": "r", "uid": owner}]
    return {"kind": kind, "metadata": metadata, "spec": {}, **fields}


def bound_pod(store: ObjectStore, **options: object) -> dict:
    pod = thing("Pod", "p", **options)
    pod["spec"] = {"nodeName": "slot-0", "terminationGracePeriodSeconds": 7}
    return store.create(pod)


def test_creation_fills_in_what_the_server_owns() -> None:
    """uid, versions, time and namespace come from the store; a status is not taken."""
    store = make_store(new_uid=lambda: "u1")
    metadata = store.create(thing(status={"phase": "x"}))["metadata"]
    assert metadata == {
        "name": "r", "namespace": "default", "labels": {"run": "r"}, "uid": "u1", "generation": 1,
        "creationTimestamp": "2026-01-02T03:04:05Z", "resourceVersion": "1",
    }  # fmt: skip
    assert "status" not in (store.get("TrainingRun", RUN) or {})


def test_creation_of_a_taken_name_is_refused() -> None:
    """The second object of one kind and name is AlreadyExists; another kind may have the name."""
    store = make_store()
    store.create(thing())
    with pytest.raises(AlreadyExists):
        store.create(thing())
    store.create(thing("PyTorchJob"))


def test_objects_are_copies_both_ways() -> None:
    """Neither the caller's dict nor an answer is the store's own."""
    store, mine = make_store(), thing()
    answer = store.create(mine)
    mine["spec"]["a"] = answer["spec"]["b"] = 1
    assert store.get("TrainingRun", RUN)["spec"] == {}


def test_list_filters_by_all_labels_and_namespace() -> None:
    """A label selector is a conjunction."""
    store = make_store()
    store.create(thing(name="a"))
    other = thing(name="b")
    other["metadata"] |= {"labels": {"run": "r", "x": "y"}, "namespace": "n2"}
    store.create(other)
    names = lambda *args, **kw: [o["metadata"]["name"] for o in store.list("TrainingRun", *args, **kw)]  # noqa: E731
    assert names() == ["a", "b"]
    assert names({"run": "r", "x": "y"}) == ["b"]
    assert names({"run": "other"}) == []
    assert names(namespace="n2") == ["b"]


def test_generation_counts_changes_of_spec_only() -> None:
    """Labels and status leave the generation alone, and status survives a change of spec."""
    store = make_store()
    run = store.create(thing())
    run["status"] = {"phase": "Running"}
    run = store.replace_status(run)
    assert run["metadata"]["generation"] == 1
    run["metadata"]["labels"] = {"a": "b"}
    run = store.replace(run)
    assert run["metadata"]["generation"] == 1
    run["spec"] = {"suspend": True}
    run["status"] = {}
    run = store.replace(run)
    assert (run["metadata"]["generation"], run["status"]) == (2, {"phase": "Running"})


def test_old_resource_version_is_a_conflict() -> None:
    """Of two writers with the same read the second is refused, for spec and status alike."""
    store = make_store()
    first = store.create(thing())
    store.replace_status({**first, "status": {"a": 1}})
    for write in (store.replace, store.replace_status):
        with pytest.raises(Conflict):
            write({**first, "spec": {"x": 1}, "status": {"a": 2}})


def test_write_without_effect_makes_no_version_and_no_event() -> None:
    """Level-triggered loops that rewrite the same status must come to rest."""
    store, events = make_store(), []
    run = store.create(thing())
    run = store.replace_status({**run, "status": {"a": 1}})
    store.subscribe(events.append)
    assert store.replace_status({**run, "status": {"a": 1}}) == run
    assert events == []


def test_writes_to_another_uid_find_nothing() -> None:
    """A re-created object of the same name is not the one that was read."""
    store = make_store()
    old = store.create(thing())
    store.delete("TrainingRun", RUN)
    store.create(thing())
    for write in (store.replace, store.replace_status):
        with pytest.raises(NotFound):
            write(old)
    with pytest.raises(NotFound):
        store.delete("TrainingRun", RUN, uid=old["metadata"]["uid"])
    assert store.get("TrainingRun", RUN) is not None


@pytest.mark.parametrize(
    ("spec", "phase", "grace", "kept_seconds"),
    [
        ({"nodeName": "n", "terminationGracePeriodSeconds": 7}, "Running", None, 7),
        ({"nodeName": "n"}, "Running", None, 30),
        ({"nodeName": "n"}, "Running", 3, 3),
        ({"nodeName": "n"}, "Running", 0, None),
        ({}, "Pending", 30, None),
        ({"nodeName": "n"}, "Failed", 30, None),
        ({"nodeName": "n"}, "Succeeded", None, None),
    ],
    ids=["own", "default", "asked", "force", "unbound", "failed", "succeeded"],
)
def test_pod_deletion_waits_for_its_kubelet(
    spec: dict, phase: str, grace: int | None, kept_seconds: int | None
) -> None:
    """Only a bound pod that has not ended is deleted gracefully."""
    store = make_store()
    pod = store.create(thing("Pod", "p") | {"spec": spec})
    store.replace_status({**pod, "status": {"phase": phase}})
    store.delete("Pod", Key("default", "p"), grace_seconds=grace)
    left = store.get("Pod", Key("default", "p"))
    assert (left["metadata"]["deletionGracePeriodSeconds"] if left else None) == kept_seconds


def test_second_deletion_only_shortens_the_grace() -> None:
    """Grace 7, then 20 changes nothing, then 1 shortens, then 0 removes."""
    store = make_store()
    bound_pod(store)
    key = Key("default", "p")
    seen = []
    for grace in (None, 20, 1):
        store.delete("Pod", key, grace_seconds=grace)
        metadata = store.get("Pod", key)["metadata"]
        seen.append((metadata["deletionGracePeriodSeconds"], metadata["deletionTimestamp"]))
    assert seen == [(7, "2026-01-02T03:04:12Z"), (7, "2026-01-02T03:04:12Z"), (1, "2026-01-02T03:04:06Z")]
    store.delete("Pod", key, grace_seconds=0)
    assert store.get("Pod", key) is None


def test_dependents_go_with_their_owner() -> None:
    """Run -> job -> pod: the job goes at once, the bound pod gets its grace."""
    store = make_store()
    run = store.create(thing())
    job = store.create(thing("PyTorchJob", "j", owner=run["metadata"]["uid"]))
    bound_pod(store, owner=job["metadata"]["uid"])
    store.delete("TrainingRun", RUN)
    assert store.get("PyTorchJob", Key("default", "j")) is None
    assert "deletionTimestamp" in store.get("Pod", Key("default", "p"))["metadata"]


def test_object_of_a_departed_owner_is_collected() -> None:
    """A job created for a run that was deleted meanwhile does not stay."""
    store = make_store()
    store.create(thing("PyTorchJob", "j", owner="gone"))
    assert store.list("PyTorchJob") == []


def test_events_come_in_the_order_of_the_changes_also_from_listeners() -> None:
    """A change made by a listener is told after the one that it reacts to, to every listener."""
    store, seen = make_store(), []

    def react(event: WatchEvent) -> None:
        if event.kind == "TrainingRun" and event.type == "ADDED":
            store.create(thing("PyTorchJob", "j", owner=event.object["metadata"]["uid"]))

    store.subscribe(react)
    store.subscribe(lambda e: seen.append((e.type, e.kind)))
    store.create(thing())
    store.delete("TrainingRun", RUN)
    assert seen == [
        ("ADDED", "TrainingRun"), ("ADDED", "PyTorchJob"), ("DELETED", "TrainingRun"), ("DELETED", "PyTorchJob"),
    ]  # fmt: skip


def test_remove_minds_the_uid() -> None:
    """A kubelet that is late must not remove the pod that took the name."""
    store = make_store()
    pod = bound_pod(store)
    store.remove("Pod", Key("default", "p"), uid="other")
    assert store.get("Pod", Key("default", "p")) is not None
    store.remove("Pod", Key("default", "p"), uid=pod["metadata"]["uid"])
    store.remove("Pod", Key("default", "p"))
    assert store.list("Pod") == []


def test_persisted_objects_restore_the_store() -> None:
    """What `persist` was told is enough to go on, versions included."""
    disk: dict[ObjectKey, dict | None] = {}
    store = make_store(persist=disk.__setitem__)
    run = store.create(thing())
    store.create(thing("PyTorchJob", "gone"))
    store.delete("PyTorchJob", Key("default", "gone"))
    assert disk[ObjectKey("PyTorchJob", "default", "gone")] is None
    again = make_store()
    again.load([o for o in disk.values() if o is not None])
    assert again.get("TrainingRun", RUN) == run
    newer = again.replace_status({**run, "status": {"a": 1}})
    assert int(newer["metadata"]["resourceVersion"]) > int(run["metadata"]["resourceVersion"])


def test_concurrent_writers_lose_no_write() -> None:
    """Four threads add 50 each under optimistic locking: the sum is exact."""
    store = make_store()
    store.create(thing())

    def add() -> None:
        for _ in range(50):
            while True:
                run = store.get("TrainingRun", RUN)
                run["status"] = {"n": run.get("status", {}).get("n", 0) + 1}
                try:
                    store.replace_status(run)
                    break
                except Conflict:
                    continue

    threads = [threading.Thread(target=add) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert store.get("TrainingRun", RUN)["status"] == {"n": 200}
