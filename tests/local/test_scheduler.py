"""Placement of pods on slots."""

from __future__ import annotations

import pytest
from trainrun_operator.local.scheduler import schedule


def node(name: str, ready: str = "True", **spec: object) -> dict:
    conditions = [{"type": "Ready", "status": ready}]
    labels = {"kubernetes.io/hostname": name, "zone": "a"}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"conditions": conditions}}


def pod(name: str, on: str | None = None, phase: str = "Pending", terms: list | None = None) -> dict:
    spec: dict = {"nodeName": on} if on else {}
    if terms is not None:
        required = {"nodeSelectorTerms": terms}
        spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    return {"metadata": {"name": name, "uid": name}, "spec": spec, "status": {"phase": phase}}


def term(operator: str, values: list[str] | None = None, key: str = "kubernetes.io/hostname") -> dict:
    expression: dict = {"key": key, "operator": operator}
    return {"matchExpressions": [expression | ({"values": values} if values is not None else {})]}


@pytest.mark.parametrize(
    ("pods", "nodes", "bindings"),
    [
        ([pod("b"), pod("a")], [node("n1"), node("n0")], {"a": "n0", "b": "n1"}),
        ([pod("a"), pod("x", on="n0", phase="Running")], [node("n0"), node("n1")], {"a": "n1"}),
        ([pod("a"), pod("x", on="n0", phase="Failed")], [node("n0")], {"a": "n0"}),
        ([pod("a")], [node("n0", ready="Unknown"), node("n1")], {"a": "n1"}),
        ([pod("a")], [node("n0", unschedulable=True), node("n1")], {"a": "n1"}),
        ([pod("a", terms=[term("NotIn", ["n0"])])], [node("n0"), node("n1")], {"a": "n1"}),
        ([pod("a", terms=[term("In", ["n1"])])], [node("n0"), node("n1")], {"a": "n1"}),
        ([pod("a", terms=[term("In", ["no"]), term("Exists", key="zone")])], [node("n0")], {"a": "n0"}),
        ([pod("a", terms=[term("DoesNotExist", key="bad")])], [node("n0")], {"a": "n0"}),
    ],
    ids=["by-name", "taken", "ended-frees", "not-ready", "cordoned", "not-in", "in", "terms-are-or", "absent-label"],
)
def test_pods_go_to_the_first_slot_that_takes_them(pods: list, nodes: list, bindings: dict) -> None:
    """Each row: pods, nodes, and who goes where."""
    assert schedule(pods, nodes)[0] == bindings


def test_every_reason_is_counted_in_the_message() -> None:
    """What a person reads in `WaitingForCapacity` names all nodes."""
    nodes = [node("n0"), node("n1", ready="Unknown"), node("n2"), node("n3", unschedulable=True)]
    pods = [pod("x", on="n2", phase="Running"), pod("a", terms=[term("NotIn", ["n0"])])]
    assert schedule(pods, nodes)[1] == {
        "a": "0/4 nodes are available: 1 Insufficient slots, 1 node(s) didn't match Pod's node affinity/selector, "
        "1 node(s) had untolerated taint {node.kubernetes.io/unreachable: }, 1 node(s) were unschedulable."
    }
    assert schedule([pod("a")], [])[1] == {"a": "0/0 nodes are available: none exist."}


def test_deleted_pod_is_not_placed() -> None:
    """A pod on its way out needs no slot."""
    leaving = pod("a")
    leaving["metadata"]["deletionTimestamp"] = "now"
    assert schedule([leaving], [node("n0")]) == ({}, {})
