"""The run manifest, and runs that are made again from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from trainrun_api.validate import validate
from trainrun_operator.cli.provenance import clone, show_manifest
from trainrun_operator.provenance.clone import CLONED_FROM
from trainrun_operator.provenance.manifest import run_manifest
from trainrun_operator.testing.manifests import small_spec

DIGEST = "registry.example/trainer@sha256:" + "a" * 64


def a_run(**spec: Any) -> dict[str, Any]:
    """Two attempts of an hour each, on p5 machines."""
    attempts = [
        {
            "number": number,
            "replicas": 2,
            "spares": 1,
            "scheduledAt": f"2026-01-0{number + 1}T00:00:00Z",
            "endedAt": f"2026-01-0{number + 1}T01:00:00Z",
            "image": DIGEST,
        }
        for number in range(2)
    ]
    wanted = small_spec("first") | {"suspend": True, "restartToken": "x", "resume": None} | spec
    wanted["workers"] = {"replicas": 2, "spares": 1, "accelerator": "cuda", "instanceType": "ml.p5.48xlarge"}
    return {
        "apiVersion": "trainrun.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": "first", "namespace": "research", "uid": "u-1", "managedFields": [{}]},
        "spec": wanted,
        "status": {"result": "Succeeded", "attempt": 1, "attempts": attempts, "restarts": 1},
    }


def store_of(tmp_path: Path) -> Path:
    """Checkpoints and prepared data, as a trainer leaves them."""
    for step, digest in ((5, "aa"), (10, "bb")):
        folder = tmp_path / f"step-{step}-c1"
        folder.mkdir()
        facts = {
            "step": step,
            "claim": 1,
            "state_digest": digest,
            "versions": {"torch": "9.9"},
            "numerics": {"device": "cpu"},
            "config": {"seed": 7},
        }
        (folder / "manifest.json").write_text(json.dumps(facts))
    (tmp_path / "step-15-c1").mkdir()  # never committed
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "1.json").write_text('{"k": 1, "parent": null}')
    data = tmp_path / "data" / "d1"
    data.mkdir(parents=True)
    sources = {"main": {"content_xxh3": "c1"}}
    files = {"tokenizer/tokenizer.json": {"xxh3": "t1", "size": 3}, "main/train.rows": {"xxh3": "r1"}}
    (data / "manifest.json").write_text(json.dumps({"data_hash": "d1", "sources": sources, "files": files}))
    return tmp_path


def test_everything_that_a_clone_is_compared_by_is_in_it(tmp_path: Path) -> None:
    """Inputs, versions, seeds, results and what it cost."""
    made = run_manifest(a_run(), store_of(tmp_path))
    assert made["run"] == {"name": "first", "namespace": "research", "uid": "u-1"}
    assert (made["image"], made["versions"], made["seeds"]) == ([DIGEST], {"torch": "9.9"}, {"": 7})
    assert made["data"] == [
        {"data_hash": "d1", "sources": {"main": "c1"}, "tokenizer": {"tokenizer/tokenizer.json": "t1"}}
    ]
    assert made["results"]["checkpoints"] == [{"stage": "", "step": 10, "state_digest": "bb"}]
    assert made["resolved"]["train"]["optimizer"]["beta2"] == 0.95
    assert (made["cost"]["machine_hours"], made["cost"]["usd"]) == (6.0, 235.98)
    assert made["cost"]["price"].startswith("39.33 USD an hour, EC2")


def test_a_run_that_has_done_nothing_yet_has_a_manifest_too(tmp_path: Path) -> None:
    """A run can be cloned before it began."""
    run = a_run()
    del run["status"]
    made = run_manifest(run, tmp_path)
    assert (made["data"], made["versions"], made["results"]["checkpoints"]) == ([], {}, [])


def test_every_stage_has_its_whole_configuration(tmp_path: Path) -> None:
    """Of its own kind, with defaults."""
    stages = [
        {"name": "base", "kind": "train", "config": {"total_steps": 7}},
        {"name": "whole", "kind": "consolidate", "config": {"checkpoint": "stage:base/checkpoints"}},
        {"name": "page", "kind": "report"},
    ]
    resolved = run_manifest(a_run(stages=stages), tmp_path)["resolved"]
    assert (resolved["base"]["total_steps"], resolved["base"]["global_batch_rows"]) == (7, 24)
    assert resolved["whole"] == {"step": None, "max_shard_bytes": 5_000_000_000, "checkpoint": "stage:base/checkpoints"}
    assert resolved["page"]["stages"] == ["base", "whole"]


def test_a_clone_is_the_same_run_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Its own name and checkpoints, the image by its digest, and nothing that was asked of the first one's life."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(run_manifest(a_run(), store_of(tmp_path))))
    assert clone(file, None, None, None) == 0
    assert "trainrun run first-clone.yaml" in capsys.readouterr().out
    made = yaml.safe_load((tmp_path / "first-clone.yaml").read_text())
    assert validate(made) == []
    assert (made["metadata"]["name"], made["metadata"]["namespace"]) == ("first-clone", "research")
    assert made["metadata"]["annotations"] == {CLONED_FROM: "first u-1"}
    assert made["spec"]["checkpoint"]["path"] == "/checkpoints/first-clone"
    assert made["spec"]["image"] == DIGEST
    assert not {"suspend", "restartToken", "resume"} & made["spec"].keys()
    assert made["spec"]["config"] == a_run()["spec"]["config"]


def test_a_file_is_never_written_over(tmp_path: Path, capsys: Any) -> None:
    """The clone may have been edited."""
    file, out = tmp_path / "manifest.json", tmp_path / "b.yaml"
    file.write_text(json.dumps(run_manifest(a_run(), store_of(tmp_path))))
    assert clone(file, "b", "/elsewhere/b", out) == 0
    assert yaml.safe_load(out.read_text())["spec"]["checkpoint"]["path"] == "/elsewhere/b"
    out.write_text("edited")
    assert clone(file, "b", None, out) == 20
    assert out.read_text() == "edited"
    assert "cannot be written: File exists; name another file with -o" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "is no run manifest"),
        ('{"kind": "TrainingRun"}', "give the manifest.json of a run, not its TrainingRun"),
        ('{"kind": "TrainRunManifest", "schema": 2}', "has schema=2; this version reads 1"),
    ],
)
def test_what_is_no_run_manifest_is_told(tmp_path: Path, capsys: Any, text: str, words: str) -> None:
    """One sentence, and nothing is written."""
    file = tmp_path / "x.json"
    file.write_text(text)
    assert clone(file, None, None, tmp_path / "new.yaml") == 20
    assert words in capsys.readouterr().err
    assert not (tmp_path / "new.yaml").exists()


def test_a_name_that_no_run_may_have_is_told(tmp_path: Path, capsys: Any) -> None:
    """By the rule that the API server would name."""
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(run_manifest(a_run(), store_of(tmp_path))))
    assert clone(file, "No.Name", None, tmp_path / "new.yaml") == 20
    assert "metadata.name=No.Name cannot name a service" in capsys.readouterr().err


def test_the_manifest_of_a_run_in_a_cluster(tmp_path: Path, capsys: Any) -> None:
    """From what kubectl prints, and the mounted checkpoints."""
    file = tmp_path / "run.json"
    file.write_text(json.dumps(a_run()))
    store = tmp_path / "store"
    store.mkdir()
    assert show_manifest(file, store_of(store)) == 0
    assert json.loads(capsys.readouterr().out)["run"]["name"] == "first"
    assert show_manifest(file, tmp_path / "none") == 20
    assert "is no folder" in capsys.readouterr().err
    file.write_text('{"kind": "List"}')
    assert show_manifest(file, store) == 20
    assert "holds no TrainingRun" in capsys.readouterr().err
