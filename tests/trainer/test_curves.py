"""Lines of models over trained tokens and over t, each beside the unmodified one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.evaluating import checkpoints
from trainrun_trainer.evaluating.__main__ import read_tasks
from trainrun_trainer.merging import sweep

from tests.trainer.runs import Site, tiny_config


@pytest.fixture
def store(undisturbed: Callable[[int], Site]) -> Path:
    """A finished run of 12 steps with 4 kept checkpoints, without and with training."""
    return undisturbed(2).store


def tasks_of(store: Path, folder: Path) -> Path:
    """Both sources' held-out rows."""
    [data] = (store / "data").iterdir()
    sets = {name: {"prepared": str(data), "source": name, "max_documents": 5} for name in ("domain", "general")}
    folder.mkdir(exist_ok=True)
    (folder / "tasks.yaml").write_text(yaml.safe_dump({"perplexity": sets}))
    return folder / "tasks.yaml"


def test_more_tokens_lower_perplexity_of_every_kept_checkpoint(
    store: Path, undisturbed: Callable[[int], Site], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The oldest is the baseline; steps that training evaluated itself agree with it; no model is left behind."""
    out = tmp_path / "out"
    checkpoints.main([str(store), "--tasks", str(tasks_of(store, tmp_path)), "--out", str(out)])
    lines = json.loads((out / "curve.json").read_text())["lines"]
    assert [line["name"] for line in lines] == ["baseline", "step-4", "step-8", "step-12"]
    assert [line.get("tokens") for line in lines] == [None, *(step * 12 * 48 for step in (4, 8, 12))]
    for source in ("domain", "general"):
        found = [line[f"perplexity, {source}"] for line in lines]
        assert found == sorted(found, reverse=True)
        measured = [line["eval"][source]["perplexity"] for line in undisturbed(2).metrics()[0] if line.get("eval")]
        assert found[-1] == pytest.approx(measured[-1], rel=1e-5)
    printed = capsys.readouterr().out
    assert printed == (out / "curve.md").read_text()
    assert printed.startswith("| name | step | tokens | perplexity, domain | perplexity, general |\n")
    assert "\n| step-4 | 4 | 2304 | " in printed
    assert not list((out / "models").iterdir())


def lines_of(store: Path, folder: Path) -> list[dict[str, Any]]:
    """The curve of a store that is evaluated without a baseline of the user's."""
    inputs = {"checkpoint": str(store), "out": str(folder / "out")}
    found: list[dict[str, Any]] = checkpoints.run(read_tasks(tasks_of(store, folder)), inputs)["lines"]
    return found


def pruned(store: Path, folder: Path) -> Path:
    """A copy as retention leaves it: the oldest steps are gone."""
    shutil.copytree(store, folder, ignore=shutil.ignore_patterns("step-0-*", "step-4-*"))
    return folder


def test_random_weights_are_the_baseline_when_step_0_is_gone(store: Path, tmp_path: Path) -> None:
    """They come from the seed again, and measure what step 0 does; what is kept has its step and tokens."""
    whole = lines_of(store, tmp_path)
    rest = lines_of(pruned(store, tmp_path / "pruned"), tmp_path / "pruned")
    assert [line["name"] for line in rest] == ["baseline", "step-8", "step-12"]
    assert rest[0] == whole[0]
    assert rest[1:] == whole[2:]


def test_the_pretrained_model_is_the_baseline_under_the_usual_retention(
    store: Path, text: Path, tmp_path: Path
) -> None:
    """Three newest are kept of five. The tokenizer of that folder is not the run's, which counts."""
    base = tmp_path / "base"
    shutil.copytree(store / "export", base, ignore=shutil.ignore_patterns("tokenizer*"))
    [data] = (store / "data").iterdir()
    changes = tiny_config(text, model={"path": str(base)}, total_steps=4, eval=None, schedule={"warmup_steps": 1})
    changes["data"] |= {"tokenizer": {"path": str(data / "tokenizer")}}
    site = Site(text, tmp_path, changes, {"interval": 1})
    site.finish(1)
    baseline, *kept = lines_of(site.store, tmp_path)
    assert [line["step"] for line in kept] == [2, 3, 4]
    [of_the_export] = [line for line in lines_of(store, tmp_path / "data") if line["name"] == "step-12"]
    for source in ("perplexity, domain", "perplexity, general"):
        assert baseline[source] == pytest.approx(of_the_export[source], rel=1e-6)
    shutil.rmtree(base)
    words = rf"baseline: the run's own start, config.model.path={base}, .* give baseline, the folder of the unmodified"
    with pytest.raises(ConfigError, match=words):
        lines_of(site.store, tmp_path)


def test_adapters_have_no_curve(store: Path, text: Path, tmp_path: Path) -> None:
    """Told before anything is measured."""
    data = {**tiny_config(text)["data"], "tokenizer": {"path": str(store / "export")}}
    site = Site(text, tmp_path, {
        "model": {"path": str(store / "export")}, "data": data, "lora": {"r": 2}, "total_steps": 2, "eval": None,
        "schedule": {"warmup_steps": 1},
    })  # fmt: skip
    site.finish(1)
    inputs = {"checkpoint": str(site.store), "baseline": "/not/looked/at", "out": str(tmp_path / "out")}
    with pytest.raises(ConfigError, match="holds adapters, not a model; merge the run's export/ into its base model"):
        checkpoints.run(read_tasks(tasks_of(site.store, tmp_path)), inputs)
    assert not (tmp_path / "out").exists()


def test_a_merge_sweep_goes_from_the_base_to_the_model(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both perplexities for each t; at the ends they are the base's and the model's."""
    base, trained = tmp_path / "base", store / "export"
    checkpoints.consolidate.main([str(store), str(base), "--step", "0"])
    out, tasks = tmp_path / "out", tasks_of(store, tmp_path)
    command = ["--method", "linear", "--over", "0,0.5,1", "--tasks", str(tasks), str(base), str(trained), str(out)]
    capsys.readouterr()
    sweep.main(command)
    lines = {line["name"]: line for line in json.loads((out / "curve.json").read_text())["lines"]}
    assert list(lines) == ["baseline", "t-0", "t-0.5", "t-1"]
    for source in ("perplexity, domain", "perplexity, general"):
        found = [lines[name][source] for name in ("t-0", "t-0.5", "t-1")]
        assert found[0] == pytest.approx(lines["baseline"][source], rel=1e-6)
        assert found[0] > found[1] > found[2]
    assert capsys.readouterr().out.startswith("| name | t | perplexity, domain | perplexity, general |\n")
    assert (out / "models" / "t-0.5" / "lineage.json").exists()


@pytest.mark.parametrize(
    ("over", "words"),
    [
        pytest.param("0.5,0.5", "each once", id="twice"),
        pytest.param("2", "over: t: Input should be less than or equal to 1", id="beyond"),
        pytest.param("x", "could not convert string to float: 'x'", id="no number"),
    ],
)
def test_values_that_are_no_t_are_refused(store: Path, tmp_path: Path, over: str, words: str) -> None:
    export = str(store / "export")
    command = ["--method", "slerp", "--over", over, "--tasks", str(tasks_of(store, tmp_path)), export, export, "/no"]
    with pytest.raises(SystemExit) as ended:
        sweep.main(command)
    assert words in str(ended.value)
