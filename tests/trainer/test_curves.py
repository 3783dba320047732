"""Lines of models over trained tokens and over t, each beside the unmodified one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from trainrun_trainer.evaluating import checkpoints
from trainrun_trainer.merging import sweep

from tests.trainer.runs import Site


@pytest.fixture
def store(undisturbed: Callable[[int], Site]) -> Path:
    """A finished run of 12 steps with 4 kept checkpoints, without and with training."""
    return undisturbed(2).store


def tasks_of(store: Path, folder: Path) -> Path:
    """Both sources' held-out rows."""
    [data] = (store / "data").iterdir()
    sets = {name: {"prepared": str(data), "source": name, "max_documents": 5} for name in ("domain", "general")}
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
