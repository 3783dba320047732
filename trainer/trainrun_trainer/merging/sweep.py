"""`python -m trainrun_trainer.merging.sweep --method slerp --over 0.25,0.5,0.75 --tasks FILE BASE MODEL OUT`.

How much of a model may be mixed in: one merge for each t, each evaluated like the base and the model themselves.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trainrun_api.stage_config import MergeConfig, Tasks

from trainrun_trainer.errors import ConfigError, TrainerError
from trainrun_trainer.evaluating.__main__ import read_tasks
from trainrun_trainer.evaluating.curve import TABLE, draw
from trainrun_trainer.merging import merge
from trainrun_trainer.settings import parse
from trainrun_trainer.units import NOBODY, Units


def run(
    config: MergeConfig, over: Sequence[float], tasks: Tasks, inputs: Mapping[str, Any], units: Units = NOBODY
) -> dict[str, Any]:
    """Merge `inputs["models"]` once for each t into `inputs["out"]`; the line of each t, the base's first.

    The merges stay below models/. Raises TrainerError.
    """
    if not over or len(set(over)) != len(over):
        raise ConfigError(f"over={list(over)}: expected values of t from 0 to 1, each once")
    models = list(inputs["models"])
    configs = {f"t-{t:g}": parse(MergeConfig, {**config.model_dump(), "t": t}, "over: ") for t in over}
    makers = {name: partial(_make, one, models, units) for name, one in configs.items()}
    return draw(tasks, Path(models[0]), makers, Path(inputs["out"]), keeps=True, units=units)


def _make(config: MergeConfig, models: Sequence[str], units: Units, folder: Path) -> dict[str, Any]:
    merge.run(config, {"models": models, "out": str(folder)}, units)
    return {"t": config.t}


def main(arguments: Sequence[str] | None = None) -> None:
    """Merge, evaluate and print the table; exit code 1 and one sentence if something is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m trainrun_trainer.merging.sweep", description="Merges over t, each evaluated."
    )
    parser.add_argument("--method", required=True, help="linear, slerp, ties, dare or dare-ties")
    parser.add_argument("--over", required=True, help="values of t, with commas")
    parser.add_argument("--tasks", type=Path, required=True, help="what is measured, YAML")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="Hugging Face folders, the base first")
    parser.add_argument("out", help="folder of curve.json, curve.md and the merges")
    asked = parser.parse_args(arguments)
    try:
        over = [float(t) for t in asked.over.split(",")]
        config = parse(MergeConfig, {"method": asked.method}, "--")
        run(config, over, read_tasks(asked.tasks), {"models": asked.models, "out": asked.out})
    except (TrainerError, OSError, ValueError) as error:
        sys.exit(str(error))
    print((Path(asked.out) / TABLE).read_text(), end="")


if __name__ == "__main__":
    main()
