"""Stages of one run, by real workers: from text to an evaluated merge, again without work, after changes and kills."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trainrun_api.contract import Env, ProgressFile
from trainrun_trainer.environment import read_environment
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.explain_step import explain

from tests.trainer.runs import only_code, was_killed
from tests.trainer.stage_runs import Chain, Stages, chain_of

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def stages(text: Path) -> Stages:
    return chain_of(text)


@pytest.fixture(scope="module")
def played(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Played once, never changed."""
    place = tmp_path_factory.mktemp("chain")
    chain = Chain(place / "root", place)
    outcomes = chain.play(stages)
    assert {outcome["cause"] for outcome in outcomes.values()} == {"Done"}
    assert all(outcome["step"] == outcome["target_step"] > 0 for outcome in outcomes.values())
    return chain


@pytest.fixture
def chain(played: Chain, tmp_path: Path) -> Chain:
    """A copy; the next attempt follows."""
    shutil.copytree(played.root, tmp_path / "root")
    return Chain(tmp_path / "root", tmp_path, attempts=played.attempts)


def test_each_stage_stands_on_those_before_it(played: Chain, stages: Stages) -> None:
    """Columns, parents, one copy of the data for each tokenizer, nothing else in the root."""
    assert sorted(path.name for path in played.root.iterdir()) == ["data", "stages"]
    assert len(list(played.root.glob("data/*/manifest.json"))) == 2
    assert played.record("base")["data"] == played.record("data")["data"]
    before = json.loads((played.result("before") / "evaluation.json").read_text())
    assert before["columns"]["model"]["path"] == str(played.result("tuned"))
    domain = {column: of["perplexity"] for column, of in before["perplexity"]["domain"].items()}
    assert domain["model"] < domain["baseline"]
    parents = json.loads((played.result("merged") / "lineage.json").read_text())["parents"]
    assert [parent["path"] for parent in parents] == [str(played.result(name)) for name in ("base", "tuned")]
    lines = json.loads((played.result("curve") / "curve.json").read_text())["lines"]
    assert [line["name"] for line in lines] == ["baseline", "step-2", "step-4"]
    told = json.loads((played.result("tuned") / "lineage.json").read_text())
    assert told["parent"]["state_digest"] == played.record("base")["outcome"]["final_checkpoint"]["state_digest"]
    page = (played.result("page") / "report.html").read_text()
    assert "From text to a merge" in page and all(f">{name}<" in page for name in stages if name != "page")
    explained = explain(str(played.root / played.record("tuned")["folder"]), 2)
    assert explained["proof"]["first_difference"] is None
    assert explain(str(played.root), 2, "tuned") == explained
    for name, (kind, _) in stages.items():
        record = played.record(name)
        assert (record["name"], record["kind"], record["state"]) == (name, kind, "done")
        assert record["outputs"] and record["started_at"] <= record["ended_at"] and record["seconds"] > 0


def test_another_run_starts_from_a_stages_result(played: Chain, stages: Stages) -> None:
    """resume.from: Run of a run of stages: the model and tokenizer are what that stage's record says."""
    for name in ("merged", "tuned", "plain"):
        config = read_environment(follows(played, name, stages)).config
        assert config.model.path == config.data.tokenizer.path == str(played.result(name))


def test_another_run_does_not_start_from_a_stage_that_is_being_done(chain: Chain, stages: Stages) -> None:
    """The parent has been started again: what its stage means is not settled."""
    changed = stages | {"tuned": ("train", {**stages["tuned"][1], "seed": 5})}
    was_killed(chain.run(changed, "tuned", "kill_in_slot", on_rank=0, nth=3), 0)
    with pytest.raises(ConfigError, match=r"resume.run=first: its stage tuned is being done again in .*; start when"):
        read_environment(follows(chain, "tuned", stages))
    with pytest.raises(ConfigError, match=r"resume.run=first: .*/stages/elsewhere is no complete export; mount"):
        read_environment(follows(chain, "elsewhere", stages))


def test_again_nothing_is_done(chain: Chain, stages: Stages) -> None:
    """Not a file is written, and the outcome is the same; by another run with the same root, too."""
    chain.uid = "uid-2"
    chain.attempts = 0
    files = chain.files()
    first = {name: chain.record(name)["outcome"] for name in stages}
    outcomes = chain.play({name: stages[name] for name in ("data", "base", "merged", "after")})
    assert chain.files() == files
    for name, outcome in outcomes.items():
        assert {key: outcome[key] for key in first[name]} == first[name]
        assert outcome["message"] == f"stage {name} is done already"


ASK = """
import sys
sys.modules |= dict.fromkeys(("torch", "transformers", "peft"))
from trainrun_trainer.launcher import is_done_already
sys.exit(0 if is_done_already(sys.argv[1]) else 9)
"""
"""A launcher's question, where importing torch fails."""


def asked(chain: Chain, stages: Stages, name: str, **more: str) -> dict[str, Any] | None:
    """The result that a launcher writes without workers; None if it starts them."""
    env = os.environ | chain.env(name, *stages[name]) | more
    progress = env[Env.PROGRESS_DIR]
    done = subprocess.run([sys.executable, "-c", ASK, progress], env=env, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 9), done.stderr
    result = Path(progress) / ProgressFile.RESULT
    assert result.exists() is (done.returncode == 0)
    return json.loads(result.read_text()) if result.exists() else None


def test_a_launcher_tells_without_workers_what_they_would(chain: Chain, stages: Stages) -> None:
    """Of every kind of stage, torch not even imported; not a file is written."""
    files = chain.files()
    workers = chain.play({name: stages[name] for name in ("data", "base")})
    for name in stages:
        result = asked(chain, stages, name)
        assert result is not None, name
        (outcome,) = result["outcomes"]
        assert outcome["message"] == f"stage {name} is done already" and result["failures"] == []
        assert outcome == workers.get(name, outcome)
        assert outcome["final_checkpoint"] == chain.record(name)["outcome"]["final_checkpoint"]
    assert chain.files() == files


def test_a_launcher_starts_workers_for_what_is_not_done(chain: Chain, stages: Stages) -> None:
    """Another configuration, a damaged result, several pods, nonsense (of which workers say what is wrong)."""
    files = chain.files()
    changed = stages | {
        "merged": ("merge", {**stages["merged"][1], "t": 0.25}),
        "tuned": ("train", {**stages["tuned"][1], "total_steps": 6}),
        "plain": ("consolidate", {"checkpoint": "stage:nowhere/checkpoints"}),
        "before": ("evaluate", {"model": 5}),
        "new": stages["merged"],
    }
    for name in ("merged", "tuned", "plain", "before", "new"):
        assert asked(chain, changed, name) is None, name
    assert asked(chain, stages, "base", PET_NNODES="1:2") is None
    assert asked(chain, stages, "base", TRAINRUN_SPARES="1") is None
    assert chain.files() == files
    next(chain.result("merged").glob("*.safetensors")).write_bytes(b"torn")
    assert asked(chain, stages, "merged") is None


def test_a_change_reruns_what_depends_on_it_and_nothing_else(chain: Chain, stages: Stages) -> None:
    """Another share in the merge: merge, its evaluation and the page; what was there before stays."""
    files, claims = chain.files(), chain.claims(stages)
    changed = stages | {"merged": ("merge", {**stages["merged"][1], "t": 0.25})}
    chain.play(changed)
    more = {name: number - claims[name] for name, number in chain.claims(stages).items()}
    assert more == dict.fromkeys(stages, 0) | dict.fromkeys(("merged", "after", "page"), 1)
    kept = {name: xxh3 for name, xxh3 in files.items() if not name.endswith("stage.json")}
    assert kept.items() <= chain.files().items()
    chain.play({name: stages[name] for name in ("merged", "after")})
    assert chain.record("merged")["folder"] + "/model/config.json" in files, "back again: the first merge counts"


def test_more_steps_go_on_in_the_same_folder(chain: Chain, stages: Stages) -> None:
    """And what stands on the stage follows; a change that cannot be resumed gets a folder of its own."""
    folder = chain.record("tuned")["folder"]
    longer = stages | {"tuned": ("train", {**stages["tuned"][1], "total_steps": 6})}
    outcomes = chain.play({name: longer[name] for name in ("tuned", "plain")})
    assert outcomes["tuned"]["step"] == 6 and chain.record("tuned")["folder"] == folder
    newest = max((chain.root / folder / "claims").glob("*.json"), key=lambda path: int(path.stem))
    assert json.loads(newest.read_text())["parent"]["step"] == 4
    assert json.loads((chain.result("plain") / "lineage.json").read_text())["step"] == 6
    other = stages | {"tuned": ("train", {**stages["tuned"][1], "seed": 5})}
    chain.play({"tuned": other["tuned"]})
    assert chain.record("tuned")["folder"] != folder and (chain.root / folder / "step-6-c2").exists()


@pytest.mark.parametrize("name", ["after", "curve"])
def test_a_killed_tool_begins_anew(chain: Chain, stages: Stages, name: str) -> None:
    """kill -9 between two units; its half is removed by the next attempt, and the result is the undisturbed one's."""
    undisturbed, target = measured(chain, name), chain.record(name)["outcome"]["target_step"]
    shutil.rmtree(chain.root / "stages" / name)
    was_killed(chain.run(stages, name, "kill_after_unit", nth=1), 0)
    assert chain.record(name)["state"] == "running" and chain.record(name)["result"] is None
    left = chain.root / chain.record(name)["folder"]
    assert left.exists()
    assert only_code(chain.run(stages, name), 0)["step"] == target
    assert not left.exists() and measured(chain, name) == undisturbed


def measured(chain: Chain, name: str) -> object:
    """What an evaluation found."""
    curve = chain.result(name) / "curve.json"
    if curve.exists():
        return json.loads(curve.read_text())
    return json.loads((chain.result(name) / "evaluation.json").read_text())["perplexity"]


def test_a_killed_training_is_resumed(played: Chain, stages: Stages, tmp_path: Path) -> None:
    """kill -9 in the first training stage, with two ranks: the same bits as without it."""
    chain = Chain(tmp_path / "root", tmp_path)
    was_killed(chain.run(stages, "base", "kill_in_slot", ranks=2, on_rank=1, nth=7), 1)
    assert chain.record("base")["state"] == "running"
    ended = chain.run(stages, "base", ranks=2)
    digest = only_code(ended, 0)["final_checkpoint"]["state_digest"]
    assert digest == played.record("base")["outcome"]["final_checkpoint"]["state_digest"]
    assert chain.record("base")["input"] == played.record("base")["input"]


def follows(chain: Chain, name: str, stages: Stages) -> dict[str, str]:
    """Orders of a run that starts from that stage's result."""
    config = json.loads(json.dumps(stages["tuned"][1]))
    config |= {"model": {}, "data": {**config["data"], "tokenizer": {}}}
    resume = {"from": "Run", "run": "first", "path": str(chain.root), "stage": name}
    return {Env.CONFIG: json.dumps(config), Env.CHECKPOINT_PATH: "/checkpoints/next", Env.RESUME: json.dumps(resume)}
