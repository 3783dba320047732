"""One line per model over a number: kept checkpoints over trained tokens, merges over t. Same texts, same baseline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainrun_api.evaluation import BASELINE, measures
from trainrun_api.stage_config import Tasks

from trainrun_trainer.errors import ConfigError
from trainrun_trainer.evaluating.report import cell
from trainrun_trainer.evaluating.run import evaluate
from trainrun_trainer.units import Units

CURVE, TABLE, MODELS = "curve.json", "curve.md", "models"
Make = Callable[[Path], Mapping[str, Any]]
"""Makes a model folder, and says what belongs on its line, such as step and tokens."""


def draw(
    config: Tasks, baseline: Path, makers: Mapping[str, Make], out: Path, keeps: bool, units: Units
) -> dict[str, Any]:
    """Evaluate the baseline and each model as it is made, into curve.json and curve.md below `out`.

    A model's folder is removed before the next is made unless `keeps`. Raises TrainerError.
    """
    if not config.perplexity:
        raise ConfigError("a curve needs sets under perplexity in the tasks file")
    places: dict[str, Mapping[str, Any]] = {}
    units.expect((1 + len(makers)) * config.num_sets)
    result = evaluate(config, _made(baseline, makers, out / MODELS, places, keeps), out, units)
    lines = [
        {"name": name, **places.get(name, {}), **{title: values.get(name) for title, values in measures(result)}}
        for name in (BASELINE, *makers)
    ]
    (out / CURVE).write_text(json.dumps({"lines": lines, "warnings": result["warnings"]}, indent=1))
    (out / TABLE).write_text(_table(lines, result["warnings"]))
    return {"lines": lines, "warnings": result["warnings"]}


def _made(
    baseline: Path, makers: Mapping[str, Make], folder: Path, places: dict[str, Mapping[str, Any]], keeps: bool
) -> Iterator[tuple[str, Path]]:
    yield BASELINE, baseline
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in makers.items():
        places[name] = make(folder / name)
        yield name, folder / name
        if not keeps:
            shutil.rmtree(folder / name)


def _table(lines: Sequence[Mapping[str, Any]], warnings: Iterable[str]) -> str:
    heads = list(dict.fromkeys(key for line in reversed(lines) for key in line))
    text = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for line in lines:
        cells = (value if isinstance(value, str) else cell(value) for value in map(line.get, heads))
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join([*text, "", *(f"- **{warning}**" for warning in warnings)]).rstrip() + "\n"
