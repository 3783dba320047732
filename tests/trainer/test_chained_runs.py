"""A run that starts from another run's result: its model and tokenizer, its lineage, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainrun_api.contract import CheckpointLayout, Env
from trainrun_trainer.environment import read_environment
from trainrun_trainer.errors import ConfigError

from tests.trainer.runs import Site, tiny_config, was_killed

pytestmark = pytest.mark.timeout(300)


def of_run(text: Path) -> dict[str, Any]:
    """Changes of a run that takes its model from another one, and reads the domain alone."""
    data = tiny_config(text)["data"]
    return {"model": {}, "data": {**data, "mix": {"domain": 1.0, "general": 0.0}, "tokenizer": {}}}


def test_it_begins_where_the_other_one_ended(site: Site, undisturbed: Callable[[int], Site]) -> None:
    """At step 0 the held-out losses are those of the other run's last step; it resumes as any run does, and its result
    tells where it comes from."""
    base = undisturbed(1)
    site.changes = of_run(site.text)
    site.resume = {"from": "Run", "run": "base", "path": str(base.store)}
    was_killed(site.run(1, "kill_in_slot", nth=60, on_rank=0), 0)
    site.finish(1)
    lines, diverged = site.metrics()
    assert not diverged and site.losses().keys() == base.losses().keys()
    begun = next(line["eval"] for line in lines if line["step"] == 0)
    assert begun == next(line["eval"] for line in base.metrics()[0] if line["step"] == 12)
    told = json.loads((site.store / CheckpointLayout.EXPORT / "lineage.json").read_text())
    assert told["parent"]["state_digest"] == base.digests()[12]
    assert told["config"]["model"]["path"] == str(base.store / CheckpointLayout.EXPORT)
    words = (site.store / CheckpointLayout.EXPORT / "tokenizer.json").read_text()
    assert words == (base.store / CheckpointLayout.EXPORT / "tokenizer.json").read_text()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: None, "is no complete export; mount that run's volume at the same place"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "holds adapters and no model; merge them"),
    ],
    ids=["no export", "adapters"],
)
def test_what_is_no_model_is_refused_before_anything_starts(
    tmp_path: Path, make: Callable[[Path], object], says: str
) -> None:
    """With the run's name and the place."""
    folder = tmp_path / CheckpointLayout.EXPORT
    folder.mkdir()
    if make(folder) is not None:
        (folder / CheckpointLayout.MANIFEST).write_text("{}")
    with pytest.raises(ConfigError, match=r"resume.run=base: ") as caught:
        read_environment(environment(str(tmp_path)))
    assert says in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_bucket_is_refused_with_a_way_out() -> None:
    """A model is opened as a folder."""
    with pytest.raises(ConfigError, match=r"s3://models/base is no folder; copy its export/"):
        read_environment(environment("s3://models/base"))


def test_checkpoints_of_others_are_not_taken_for_its_own(site: Site, undisturbed: Callable[[int], Site]) -> None:
    """Its own path must be empty when it begins."""
    base = undisturbed(1)
    site.finish(1)
    site.uid = "uid-2"
    site.changes = of_run(site.text)
    site.resume = {"from": "Run", "run": "base", "path": str(base.store)}
    (ended,) = site.run(1)
    assert ended.outcome is not None and ended.outcome["exit_code"] == 20
    assert "resume.from=Run, but checkpoint.path already holds checkpoints of another run" in ended.outcome["message"]


def environment(path: str) -> dict[str, str]:
    """What a pod of such a run is told."""
    config = tiny_config(Path("/text")) | of_run(Path("/text"))
    resume = {"from": "Run", "run": "base", "path": path}
    return {
        Env.CONFIG: json.dumps(config),
        Env.CHECKPOINT_PATH: "/checkpoints/tuned",
        Env.RESUME: json.dumps(resume),
    }
