"""How Flux, Helm and Argo CD judge a run at every stage: their own code on what the shipped core writes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from trainrun_api.contract import GROUP
from trainrun_api.crd import KIND
from trainrun_operator.core import reasons
from trainrun_operator.core.decide import decide
from trainrun_operator.core.observed import NodeFacts, Observed, ProgressFacts, Refusal
from trainrun_operator.core.times import to_text

from tests.controlplane.binaries import ensure
from tests.controlplane.conftest import build
from tests.controlplane.control_plane import ROOT
from tests.operator.builders import (
    NOW,
    ago,
    closed_attempt,
    ended_pod,
    fresh_attempt,
    idle,
    make_attempt,
    make_job,
    make_nodes,
    make_pod,
    make_spec,
    make_status,
    pending_pod,
    running,
    settled,
    words,
)

SCRIPT = ROOT / "docs" / "gitops" / "argocd-health.lua"
INSTALLED = ROOT / "docs" / "gitops" / "README.md"

DONE, GOING_ON, ILL = ("Current", "Healthy"), ("InProgress", "Progressing"), ("Failed", "Degraded")

JUDGED = {
    "SpecUnworkable": ILL,
    "CreationRefused": ILL,
    "PreviousRunTerminating": GOING_ON,
    "ParentMissing": ILL,
    "ParentAwaited": GOING_ON,
    "ParentFailed": ILL,
    "CheckpointPathInUse": ILL,
    "Suspended": DONE,
    "BackingOff": GOING_ON,
    "AttemptStarted": GOING_ON,
    "Starting": GOING_ON,
    "Running": DONE,
    "RunningOnFewerWorkers": DONE,
    "Blind": DONE,
    "ContractUnknown": DONE,
    "NodeSuspect": DONE,
    "TakeoverAwaited": GOING_ON,
    "MembersReplaced": DONE,
    "ImagePullRetried": GOING_ON,
    "ContainerRetried": GOING_ON,
    "WaitingForCapacity": GOING_ON,
    "Queued": GOING_ON,
    "Preempted": GOING_ON,
    "FailureSettling": GOING_ON,
    "Stopping": GOING_ON,
    "AttemptStopped": GOING_ON,
    "Restarting": GOING_ON,
    "FewerWorkers": GOING_ON,
    "GangIncomplete": GOING_ON,
    "StageCompleted": GOING_ON,
    "Succeeded": DONE,
    "Failed": ILL,
    "Deleted": GOING_ON,
    "Expired": GOING_ON,
}
"""Reason -> what kstatus and Argo CD say."""

Judge = Callable[[list[dict[str, Any]]], list[dict[str, str]]]


@pytest.fixture(scope="module")
def judge() -> Judge:
    """Objects -> verdicts."""
    build("gitops")
    return judged


def judged(objects: list[dict[str, Any]], script: Path = SCRIPT) -> list[dict[str, str]]:
    """What the tools say about each object."""
    command = [str(ensure("gitops")), str(script)]
    done = subprocess.run(command, input=json.dumps(objects), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    verdicts: list[dict[str, str]] = json.loads(done.stdout)
    return verdicts


def a_run(status: dict[str, Any] | None, generation: int = 1, **metadata: Any) -> dict[str, Any]:
    """A TrainingRun as the API serves it."""
    run: dict[str, Any] = {
        "apiVersion": "trainrun.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": "a", "namespace": "ns", "generation": generation, **metadata},
    }
    return run if status is None else run | {"status": status}


def pairs(verdicts: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(v["kstatus"], v["argo"]) for v in verdicts]


def test_every_outcome_is_judged_as_the_table_says(judge: Judge) -> None:
    """And both tools show the operator's own sentence."""
    decisions = [settled(outcome) for outcome in reasons.ALL.values()]
    verdicts = judge([a_run(decision.status) for decision in decisions])
    assert dict(zip(reasons.ALL, pairs(verdicts), strict=True)) == JUDGED
    assert [v["argoMessage"] for v in verdicts] == [d.message for d in decisions]
    told = [v["kstatusMessage"] for v in verdicts if v["kstatus"] != "Current"]
    assert told == [d.message for d, v in zip(decisions, verdicts, strict=True) if v["kstatus"] != "Current"]


STAGES: list[tuple[str, Observed, str]] = [
    ("created", idle(), "AttemptStarted"),
    ("refused", running(status=make_status(fresh_attempt()), jobs=(), pods=(), refusal=Refusal(0, "quota", NOW)),
     "CreationRefused"),
    ("no nodes", running(attempt=make_attempt(scheduled_at=None, started_at=to_text(ago(60)), first_step_at=None),
                         pods=(pending_pod(0), pending_pod(1))), "WaitingForCapacity"),
    ("in a queue", running(attempt=make_attempt(nodes=[]), jobs=(make_job(is_suspended=True),), pods=()), "Queued"),
    ("loading", running(attempt=make_attempt(first_step_at=None), progress=ProgressFacts(0)), "Starting"),
    ("training", running(), "Running"),
    ("node marked", running(nodes=make_nodes(NodeFacts("n1", mark="Unschedulable"))), "Stopping"),
    ("worker died", running(pods=(make_pod(0), ended_pod(1, 1, words(1)))), "Restarting"),
    ("next attempt", idle(closed_attempt()), "AttemptStarted"),
    ("suspended", idle(closed_attempt(), spec=make_spec(suspend=True)), "Suspended"),
    ("succeeded", running(pods=(ended_pod(0, 0, words(0)),)), "Succeeded"),
    ("stays so", idle(closed_attempt(), status=make_status(closed_attempt(), result="Succeeded")), "Succeeded"),
    ("bad config", running(pods=(ended_pod(0, 20, words(20)),)), "Failed"),
]  # fmt: skip


def test_a_run_is_judged_at_every_stage_of_its_life(judge: Judge) -> None:
    """The rules that ship, on the facts of each stage."""
    decisions = [decide(observed) for _, observed, _ in STAGES]
    assert [d.reason for d in decisions] == [reason for _, _, reason in STAGES]
    verdicts = pairs(judge([a_run(d.status) for d in decisions]))
    names = [name for name, _, _ in STAGES]
    assert dict(zip(names, verdicts, strict=True)) == {name: JUDGED[reason] for name, _, reason in STAGES}


def test_a_status_of_an_older_spec_counts_for_nothing(judge: Judge) -> None:
    """Whatever it says: the edit has not been looked at."""
    old = [a_run(settled(outcome).status, generation=2) for outcome in reasons.ALL.values()]
    assert set(pairs(judge(old))) == {GOING_ON}
    seen = running()
    now = decide(replace(seen, run=replace(seen.run, generation=2)))
    assert pairs(judge([a_run(now.status, generation=2)])) == [DONE]


def test_a_run_that_nobody_has_looked_at_goes_on(judge: Judge) -> None:
    """By the status that our definition fills in. Without any, kstatus is content; that is why it does."""
    schema = yaml.safe_load((ROOT / "crds" / "trainrun.dev_trainingruns.yaml").read_text())
    unseen = schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["default"]
    assert pairs(judge([a_run(unseen), a_run(None)])) == [GOING_ON, ("Current", "Progressing")]


def test_a_run_that_is_deleted_is_terminating(judge: Judge) -> None:
    """Also one that trains well."""
    going = [a_run(decide(running()).status, deletionTimestamp="2026-01-01T00:00:00Z")]
    assert pairs(judge(going)) == [("Terminating", "Progressing")]


def test_the_page_names_the_key_that_argo_cd_looks_for() -> None:
    """Group and kind with an underscore between; every place that installs the script says the same."""
    key = f"resource.customizations.health.{GROUP}_{KIND}="
    assert INSTALLED.read_text().count("resource.customizations.health.") == INSTALLED.read_text().count(key) == 2
