"""HyperPod's words about a node: current faults in one bounded line, whatever the annotation holds."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainrun_operator.facts import node_facts
from trainrun_operator.hyperpod import FAULT_DETAILS, LONGEST_FAULT, fault

TYPES, REASONS = "sagemaker.amazonaws.com/fault-types", "sagemaker.amazonaws.com/fault-reasons"
LABELS = {TYPES: "NvidiaErrorTerminate", REASONS: "NvidiaGpuXidErrorPendingReplacement"}
OLD = {"timestamp": "2026-01-01T00:00:00Z", "type": "EfaError", "reason": "EfaLinkDown", "message": "link 2 is down"}
NEW = {
    "timestamp": "2026-01-02T00:00:00Z", "type": "NvidiaErrorTerminate",
    "reason": "NvidiaGpuXidErrorPendingReplacement", "message": "XID 74 on GPU 3",
}  # fmt: skip
WHOLE = "NvidiaErrorTerminate, NvidiaGpuXidErrorPendingReplacement: XID 74 on GPU 3"


def told(details: object, labels: dict[str, str] | None = None) -> str:
    text = details if isinstance(details, str) else json.dumps(details)
    return fault(LABELS if labels is None else labels, {FAULT_DETAILS: text})


@pytest.mark.parametrize(
    ("details", "labels", "expected"),
    [
        ([OLD, NEW], LABELS, WHOLE),
        ([NEW, OLD], LABELS, WHOLE),
        ([OLD | {"timestamp": NEW["timestamp"]}, NEW], LABELS, WHOLE),
        ([NEW], {REASONS: "EfaError"}, f"EfaError, {WHOLE}"),
        ([NEW], {}, ""),
        ([], {TYPES: "EfaError"}, "EfaError"),
        ([{"message": "two\nlines  of\ttext"}], {TYPES: "EfaError"}, "EfaError: two lines of text"),
        ([7, {"message": 7, "reason": None}], {TYPES: "EfaError"}, "EfaError"),
        ("no json", {TYPES: "EfaError"}, "EfaError"),
        ({"message": "not a list"}, {TYPES: "EfaError"}, "EfaError"),
        ("[" * 100_000, {TYPES: "EfaError"}, "EfaError"),
    ],
    ids=[
        "newest last", "newest first", "equal times", "one label", "fault is over", "labels only", "one line",
        "odd entries", "garbage", "not a list", "endless",
    ],
)  # fmt: skip
def test_the_current_fault_in_hyperpods_words(details, labels, expected):
    """Types, reasons, and the message of the newest entry; old details alone are no fault."""
    assert told(details, labels) == expected


def test_a_long_message_is_cut():
    """One node must not fill an Event."""
    text = told([NEW | {"message": "x" * 100_000}])
    assert len(text) == LONGEST_FAULT
    assert text.endswith("...")


@given(details=st.one_of(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)))
def test_any_annotation_is_survived(details: str):
    """It is not ours."""
    assert len(fault(LABELS, {FAULT_DETAILS: details})) <= LONGEST_FAULT
    assert fault({}, {FAULT_DETAILS: details}) == ""


def test_a_nodes_facts_hold_fault_and_instance_group():
    """Without them they are empty."""
    labels = LABELS | {"sagemaker.amazonaws.com/instance-group-name": "workers"}
    metadata = {"name": "n", "labels": labels, "annotations": {FAULT_DETAILS: json.dumps([NEW])}}
    facts = node_facts({"metadata": metadata})
    assert (facts.fault, facts.instance_group) == (WHOLE, "workers")
    assert (facts.mark, facts.ready) == ("", None)
    plain = node_facts({"metadata": {"name": "n"}})
    assert (plain.fault, plain.instance_group) == ("", "")
