"""`python -m trainrun_trainer.evaluating MODEL --baseline BASE --tasks FILE --out DIR`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from trainrun_api.evaluation import BASELINE, MODEL
from trainrun_api.stage_config import Tasks

from trainrun_trainer.errors import ConfigError, TrainerError
from trainrun_trainer.evaluating.run import TABLE, run
from trainrun_trainer.settings import parse


def read_tasks(file: Path) -> Tasks:
    """The tasks file, YAML or JSON; paths in it start at the working directory. Raises ConfigError."""
    try:
        raw = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read as YAML: {' '.join(str(error).split())}") from error
    return parse(Tasks, raw, f"{file}: ")


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate and print the table; exit code 1 and one sentence if something is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m trainrun_trainer.evaluating", description="Evaluate a model beside the unmodified one."
    )
    parser.add_argument("model", type=Path, help="Hugging Face folder, such as a run's export/")
    parser.add_argument("--baseline", type=Path, required=True, help="folder of the unmodified model")
    parser.add_argument("--tasks", type=Path, required=True, help="what is measured, YAML")
    parser.add_argument("--out", type=Path, required=True, help="folder of evaluation.json, evaluation.md and samples")
    asked = parser.parse_args(arguments)
    try:
        run(read_tasks(asked.tasks), {MODEL: str(asked.model), BASELINE: str(asked.baseline), "out": str(asked.out)})
    except (TrainerError, OSError) as error:
        sys.exit(str(error))
    print((asked.out / TABLE).read_text(), end="")


if __name__ == "__main__":
    main()
