"""Runs of several stages: what each is run with, what follows what, and what a new stage does not inherit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from trainrun_api.contract import Env, Label
from trainrun_api.stages import laid_over, next_stage, references, spec_of
from trainrun_api.v1alpha1 import TrainingRunSpec
from trainrun_operator.core.decide import decide
from trainrun_operator.core.decision import CreateJob, StopJob
from trainrun_operator.core.observed import Parent
from trainrun_operator.core.pytorchjob import render
from trainrun_operator.core.times import to_text
from trainrun_operator.testing.manifests import small_spec

from tests.operator.builders import (
    actions,
    ago,
    applied,
    closed_attempt,
    ended_pod,
    idle,
    make_attempt,
    make_pod,
    make_progress,
    make_spec,
    make_status,
    running,
    words,
)

STAGES: list[dict[str, Any]] = [
    {"name": "texts", "kind": "prepare"},
    {"name": "base", "kind": "train"},
    {
        "name": "tuned",
        "kind": "train",
        "config": {"model": {"path": "stage:base"}, "total_steps": 7},
        "workers": {"replicas": 3, "minReplicas": 2},
    },
    {"name": "after", "kind": "evaluate", "config": {"model": "stage:tuned", "baseline": "stage:base"}},
]
WORKERS = {"replicas": 2, "accelerator": "cpu", "spares": 1}


def chain(**changes: Any) -> TrainingRunSpec:
    """The run of these tests."""
    return make_spec(stages=STAGES, workers=WORKERS, **changes)


def done(index: int = 0, **changes: Any) -> Any:
    """A pod whose program reached its target."""
    return ended_pod(index, 0, words(0, **changes), reason="Completed")


def in_stage(name: str, **words: Any) -> Any:
    """Attempt 0 of that stage has just ended as it should. Only training leaves a checkpoint."""
    status = make_status(make_attempt(stage=name), stage=name, ledgers={"x": {"count": 1}})
    if name not in ("base", "tuned"):
        words = {"step": 3, "target_step": 3, "final_checkpoint": None, **words}
    return running(spec=chain(), status=status, pods=(done(0, **words), done(1, **words)))


def job_of(stage: str, status: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """The PyTorchJob of that stage."""
    spec = small_spec("a") | {"stages": STAGES, "workers": WORKERS} | changes
    run = {"metadata": {"name": "a", "namespace": "default", "uid": "u"}, "spec": spec}
    return render(run | {"status": {"stage": stage} | (status or {})}, 4, [], 1)


def env_of(job: dict[str, Any]) -> dict[str, str]:
    """What its trainer is told."""
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    return {e["name"]: e.get("value", "") for e in worker["template"]["spec"]["containers"][0]["env"]}


def test_the_first_stage_comes_first():
    """With the shape of its kind: preparing is one process, whatever the run has."""
    decision = decide(idle(spec=chain()))
    (create,) = actions(decision, CreateJob)
    assert (create.replicas, create.spares) == (1, 0)
    assert (decision.status["stage"], decision.status["attempts"][0]["stage"]) == ("texts", "texts")
    assert decision.message == "Attempt 0 starts on 1 worker, the first of stage texts."


def test_a_complete_stage_makes_room_for_the_next():
    """Its word stays on record; its steps, checkpoint and budgets are not those of the next one."""
    decision = decide(in_stage("base"))
    assert (decision.rule, decision.reason) == ("stage_completed", "StageCompleted")
    assert decision.message == "Stage base is complete at step 100; stage tuned is next."
    status = decision.status
    assert (status["stage"], status.get("result")) == ("tuned", None)
    assert [(s["name"], s["kind"], s["attempt"], s["step"]) for s in status["stages"]] == [("base", "train", 0, 100)]
    assert not {"progress", "checkpoint", "ledgers"} & status.keys()
    assert status["attempts"][0]["cause"] == "Done"
    assert actions(decision, CreateJob) == []


def test_the_next_stage_starts_with_its_own_shape():
    """In the pass after, whoever runs it."""
    first = in_stage("base")
    decision = decide(applied(first, decide(first)))
    (create,) = actions(decision, CreateJob)
    assert (create.attempt, create.replicas, create.spares) == (1, 3, 1)
    assert decision.message == "Attempt 1 starts on 3 workers, the first of stage tuned."


def test_what_the_stage_before_lacked_is_no_reason_to_ask_for_less():
    """An attempt of the stage before ran on fewer workers."""
    before = closed_attempt(cause="Done", stage="base", scheduled_replicas=1)
    (create,) = actions(decide(idle(before, spec=chain(), status=make_status(before, stage="tuned"))), CreateJob)
    assert create.replicas == 3


def test_the_last_stage_ends_the_run():
    """It left a result and no checkpoint; a training stage without one has proved nothing."""
    observed = in_stage("after")
    assert decide(observed).rule == "attempt_succeeded"
    assert decide(observed).status["result"] == "Succeeded"
    assert decide(in_stage("base", final_checkpoint=None)).rule == "attempt_runs"


def test_a_failed_stage_is_tried_again():
    """As training is, and it stays the stage."""
    status = make_status(make_attempt(stage="after", replicas=1), stage="after")
    failed = ended_pod(0, 1, words(1))
    decision = decide(running(spec=chain(), status=status, pods=(failed,), progress=make_progress(agents={})))
    assert (decision.reason, decision.status["stage"]) == ("Restarting", "after")


def test_workers_of_the_run_are_not_asked_of_a_stage_of_one_process():
    """The evaluation runs on one worker; that is not a wish for another number."""
    attempt = make_attempt(stage="after", replicas=1, nodes=["n0"])
    status = make_status(attempt, stage="after")
    decision = decide(running(spec=chain(), status=status, pods=(make_pod(0),)))
    assert decision.reason == "Running"
    assert actions(decision, StopJob) == []


def test_pods_are_told_their_stage():
    """Name and kind; a training stage its whole configuration, another its own alone."""
    tuned, after = env_of(job_of("tuned")), env_of(job_of("after"))
    assert (tuned[Env.STAGE], tuned[Env.STAGE_KIND], after[Env.STAGE_KIND]) == ("tuned", "train", "evaluate")
    config = json.loads(tuned[Env.CONFIG])
    assert config["model"] == {"path": "stage:base"}
    assert (config["total_steps"], config["global_batch_rows"]) == (7, 24)
    assert json.loads(after[Env.CONFIG]) == STAGES[3]["config"]
    assert tuned[Env.CHECKPOINT_PATH] == after[Env.CHECKPOINT_PATH] == "/checkpoints/a"
    worker = job_of("tuned")["spec"]["pytorchReplicaSpecs"]["Worker"]
    assert worker["template"]["metadata"]["labels"][Label.STAGE] == "tuned"


def test_a_run_of_one_training_stage_is_told_no_kind():
    """It trains in checkpoint.path itself, as runs without stages do, with any image that ever did."""
    env = env_of(job_of("only", stages=[{"name": "only", "kind": "train"}]))
    assert (env[Env.STAGE], Env.STAGE_KIND in env) == ("only", False)


def test_only_the_first_training_stage_starts_from_another_run():
    """And only it waits for that run."""
    resume = {"from": "Run", "run": "b"}
    place = {"run": "b", "uid": "u", "path": "/checkpoints/b"}
    told = {
        stage["name"]: json.loads(env_of(job_of(stage["name"], {"parent": place}, resume=resume))[Env.RESUME])
        for stage in STAGES
    }
    assert {name: one["from"] for name, one in told.items()} == {
        "texts": "Latest", "base": "Run", "tuned": "Latest", "after": "Latest",
    }  # fmt: skip
    assert told["base"]["path"] == "/checkpoints/b"
    observed = idle(spec=chain(resume=resume), parent=Parent("b", "u", "/checkpoints/b", None))
    assert "parent" not in decide(observed).status
    before = closed_attempt(cause="Done", stage="texts")
    status = make_status(before, stage="base")
    assert decide(idle(status=status, spec=chain(resume=resume), parent=observed.parent)).rule == "parent_awaited"


def test_an_operator_that_dies_after_the_status_goes_on_alike():
    """Between the end of a stage and the next attempt nothing but the status is there."""
    first = in_stage("texts")
    after = applied(first, decide(first))
    once, twice = decide(after), decide(applied(after, decide(after)))
    assert actions(once, CreateJob) == actions(twice, CreateJob) != []


@pytest.mark.parametrize(
    ("base", "overlay", "merged"),
    [
        ({"total_steps": 5, "seed": 1}, {"seed": 2}, {"total_steps": 5, "seed": 2}),
        ({"optimizer": {"lr": 1, "eps": 2}}, {"optimizer": {"lr": 3}}, {"optimizer": {"lr": 3, "eps": 2}}),
        ({"model": {"architecture": {"hidden_size": 8}}}, {"model": {"path": "/m"}}, {"model": {"path": "/m"}}),
        ({"model": {"path": "/m"}}, {"model": {"architecture": {}}}, {"model": {"architecture": {}}}),
        (
            {"data": {"tokenizer": {"vocab_size": 9}, "row_tokens": 8}},
            {"data": {"tokenizer": {"path": "/t"}}},
            {"data": {"tokenizer": {"path": "/t"}, "row_tokens": 8}},
        ),
        ({"data": {"mix": {"a": 1, "b": 2}}}, {"data": {"mix": {"b": 1}}}, {"data": {"mix": {"b": 1}}}),
        ({"data": {"sources": {"a": {}}}}, {"data": {"sources": {"b": {}}}}, {"data": {"sources": {"b": {}}}}),
        ({}, {"lora": {"r": 4}}, {"lora": {"r": 4}}),
    ],
)
def test_how_an_overlay_is_laid(base, overlay, merged):
    """Fields one by one; what has the user's own names as a whole; of alternatives the one that is given."""
    assert laid_over(base, overlay) == merged


def test_stages_have_an_order():
    """Which comes after which; a status of before the first attempt names none."""
    assert [next_stage(chain(), name) for name in ("", "texts", "tuned", "after")] == ["base", "base", "after", None]
    assert spec_of(make_spec(), "train") == make_spec()


def test_references_are_found_where_they_stand():
    """In mappings and lists."""
    found = [(r.field, r.stage, r.part) for r in references({"models": ["stage:a", "/m"], "x": {"y": "stage:b/data"}})]
    assert found == [("models[0]", "a", ""), ("x.y", "b", "data")]


def test_a_finished_stage_is_over_when_it_was():
    """For the person who reads the status."""
    status = decide(in_stage("texts")).status
    assert status["stages"][0]["endedAt"] == to_text(ago(0))
