"""Edits of a live run: every field is refused, taken at the next attempt, or makes the run save and stop at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pydantic
import pytest
from trainrun_api.train_config import TrainConfig
from trainrun_api.v1alpha1 import (
    CheckpointSpec,
    FailurePolicySpec,
    HealthSpec,
    ResumeSpec,
    TrainingRunSpec,
    WorkersSpec,
)

from tests.controlplane.api import ApiError
from tests.controlplane.pods import said
from tests.controlplane.stage import Stage
from tests.controlplane.waiting import wait_for


@dataclass(frozen=True)
class Edit:
    """A patch of spec and what becomes of it."""

    patch: dict[str, Any]
    effect: Literal["refused", "next", "now"]
    shows: str = ""
    """next: what the job of the next attempt has, and that of the first has not; empty: nothing that a job shows."""
    says: str = ""
    """refused: a part of the API server's sentence; now: the cause of the attempt's end."""


IMMUTABLE = "during the life of a run"
LATER = "is not yet available in this version"


def config(**fields: Any) -> dict[str, Any]:
    """A patch of spec.config."""
    return {"config": fields}


EDITS: dict[str, Edit] = {
    "image": Edit({"image": "trainrun/trainer:0.2.0"}, "next", "trainrun/trainer:0.2.0"),
    "command": Edit({"command": ["train.py"]}, "next", "train.py"),
    "stages": Edit({"stages": [{"name": "main", "kind": "train"}]}, "next", '"main"'),
    "suspend": Edit({"suspend": True}, "now", says="Suspended"),
    "restartToken": Edit({"restartToken": "again"}, "now", says="RestartRequested"),
    "maxAttemptSeconds": Edit({"maxAttemptSeconds": 86400}, "next", '"86400"'),
    "terminationGracePeriodSeconds": Edit({"terminationGracePeriodSeconds": 77}, "next", '"77"'),
    "ttlSecondsAfterFinished": Edit({"ttlSecondsAfterFinished": 100000}, "next"),
    "workers.replicas": Edit({"workers": {"replicas": 1}}, "now", says="WorkersChanged"),
    "workers.minReplicas": Edit({"workers": {"minReplicas": 1}}, "next"),
    # all of these are taken together, and spares go not with a command: test_spares.py has an edit of theirs
    "workers.spares": Edit({"workers": {"spares": 0}}, "next"),
    "workers.devicesPerWorker": Edit({"workers": {"devicesPerWorker": 2}}, "next", '"nprocPerNode": "2"'),
    "workers.accelerator": Edit({"workers": {"accelerator": "cuda"}}, "next", "nvidia.com/gpu"),
    "workers.instanceType": Edit({"workers": {"instanceType": "ml.p4d.24xlarge"}}, "next", "ml.p4d.24xlarge"),
    "workers.template": Edit(
        {"workers": {"template": {"metadata": {"labels": {"team": "law"}}}}}, "next", '"team": "law"'
    ),
    "checkpoint.path": Edit({"checkpoint": {"path": "/elsewhere"}}, "refused", says=IMMUTABLE),
    "checkpoint.interval": Edit({"checkpoint": {"interval": 33}}, "next", '\\"interval\\":33'),
    "checkpoint.keepLast": Edit({"checkpoint": {"keepLast": 7}}, "next", '\\"keepLast\\":7'),
    "checkpoint.keepEverySteps": Edit({"checkpoint": {"keepEverySteps": 88}}, "next", '\\"keepEverySteps\\":88'),
    "resume.from": Edit({"resume": {"from": "Never"}}, "refused", says=IMMUTABLE),
    "resume.step": Edit({"resume": {"from": "Step", "step": 3}}, "refused", says=IMMUTABLE),
    "resume.run": Edit({"resume": {"from": "Run", "run": "other"}}, "refused", says=IMMUTABLE),
    "failurePolicy.maxRestarts": Edit({"failurePolicy": {"maxRestarts": 3}}, "next"),
    "failurePolicy.rules": Edit(
        {"failurePolicy": {"rules": [{"name": "r", "onExitCodes": [99], "action": "FailRun"}]}}, "next"
    ),
    "health.startupTimeoutSeconds": Edit({"health": {"startupTimeoutSeconds": 900}}, "next"),
    "health.stallTimeoutSeconds": Edit({"health": {"stallTimeoutSeconds": 900}}, "next"),
    "health.nodeRepair": Edit({"health": {"nodeRepair": "Reboot"}}, "refused", says=LATER),
    "config.model": Edit(config(model={"architecture": {"hidden_size": 256}}), "refused", says=IMMUTABLE),
    "config.data": Edit(config(data={"mix": {"domain": 0.5, "general": 0.5}}), "refused", says=IMMUTABLE),
    "config.total_steps": Edit(config(total_steps=555), "next", '\\"total_steps\\":555'),
    "config.global_batch_rows": Edit(config(global_batch_rows=16), "next", '\\"global_batch_rows\\":16'),
    "config.micro_batch_rows": Edit(config(micro_batch_rows=1), "next", '\\"micro_batch_rows\\":1'),
    "config.seed": Edit(config(seed=9), "next", '\\"seed\\":9'),
    "config.precision": Edit(config(precision="bf16"), "next", '\\"precision\\":\\"bf16\\"'),
    "config.threads_per_worker": Edit(config(threads_per_worker=3), "next", '\\"threads_per_worker\\":3'),
    "config.dropout": Edit(config(dropout=0.25), "next", '\\"dropout\\":0.25'),
    "config.optimizer": Edit(config(optimizer={"lr": 0.125}), "next", '\\"lr\\":0.125'),
    "config.schedule": Edit(config(schedule={"warmup_steps": 11}), "next", '\\"warmup_steps\\":11'),
    "config.parallel": Edit(config(parallel={"dp_replicate": 2}), "next", '\\"dp_replicate\\":2'),
    "config.activation_checkpointing": Edit(
        config(activation_checkpointing="every 2"), "next", '\\"activation_checkpointing\\":\\"every 2\\"'
    ),
    "config.lora": Edit(config(lora={}), "refused", says="adapters are trained on a pretrained model"),
    "config.eval": Edit(config(eval={"every_steps": 44}), "next", '\\"every_steps\\":44'),
    "config.sifting": Edit(config(sifting={}), "refused", says=LATER),
    "config.export": Edit(config(export={"max_shard_bytes": 123000000}), "next", "123000000"),
}
"""By the field as the user wrote it."""

PARTS: dict[str, type[pydantic.BaseModel]] = {
    "workers": WorkersSpec,
    "checkpoint": CheckpointSpec,
    "resume": ResumeSpec,
    "failurePolicy": FailurePolicySpec,
    "health": HealthSpec,
    "config": TrainConfig,
}


def fields() -> Iterator[str]:
    """Every field of a spec, those of its parts one by one."""
    for name, field in TrainingRunSpec.model_fields.items():
        alias = field.alias or name
        if alias not in PARTS:
            yield alias
            continue
        for inner, inner_field in PARTS[alias].model_fields.items():
            yield f"{alias}.{inner_field.alias or inner}"


def with_effect(effect: str) -> list[str]:
    """Fields of that effect."""
    return [name for name, edit in EDITS.items() if edit.effect == effect]


def refusal(stage: Stage, patch: dict[str, Any]) -> str:
    """What the API server says against it; empty: it was taken."""
    try:
        stage.edit_run("a", patch)
    except ApiError as error:
        assert error.code == 422
        return str(error)
    return ""


def test_every_field_is_in_the_table() -> None:
    """A new field needs an answer."""
    assert set(fields()) == set(EDITS)


def test_edits_that_are_refused(stage: Stage) -> None:
    """By the API server, with a sentence that names the field; nothing is lost."""
    stored = stage.create_run("a")
    for name in with_effect("refused"):
        said = refusal(stage, EDITS[name].patch)
        assert EDITS[name].says in said, name
        assert f"spec.{name.split('.')[0]}" in said, name
    assert stage.run("a")["spec"] == stored["spec"]


def test_edits_that_can_wait_are_taken_at_the_next_attempt(stage: Stage) -> None:
    """The attempt goes on undisturbed; then each edit is in the next job."""
    with stage.operator():
        stage.create_run("a")
        first = stage.wait_running("a", 0)
        before = stage.jobs("a")[0]
        for name in with_effect("next"):
            stage.edit_run("a", EDITS[name].patch)
        generation = stage.run("a")["metadata"]["generation"]
        stage.wait_status("a", observedGeneration=generation)
        assert stage.attempts("a") == [(0, None)]
        assert [job["metadata"]["uid"] for job in stage.jobs("a")] == [before["metadata"]["uid"]]
        stage.trainers.end(first[0], 30, said(first[0], 30, "DeviceSuspect", step=7))
        wait_for(lambda: [j["metadata"]["name"] for j in stage.jobs("a")] == ["a-a1"], "the next job alone")
        after = stage.jobs("a")[0]
        assert stage.run("a")["status"]["attempts"][1]["generation"] == generation
    old, new = json.dumps(before["spec"]), json.dumps(after["spec"])
    shown = [name for name in with_effect("next") if EDITS[name].shows]
    assert [n for n in shown if EDITS[n].shows in old] == []
    assert [n for n in shown if EDITS[n].shows not in new] == []


@pytest.mark.parametrize("name", with_effect("now"))
def test_edits_that_save_and_stop_at_once(stage: Stage, name: str) -> None:
    """The attempt ends with its cause, free of budget."""
    with stage.operator():
        stage.create_run("a")
        stage.wait_running("a", 0)
        stage.edit_run("a", EDITS[name].patch)
        wait_for(lambda: stage.attempts("a")[0][1], "the attempt to end", seen=lambda: stage.story("a"))
        assert stage.attempts("a")[0] == (0, EDITS[name].says)
        assert stage.run("a")["status"].get("restarts", 0) == 0
