"""`python -m trainrun_trainer.evaluating.checkpoints CHECKPOINT_PATH --tasks FILE --out DIR`: every kept checkpoint.

Perplexity over trained tokens: each checkpoint is consolidated, evaluated and removed, so the disk holds one model.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trainrun_api.evaluation import BASELINE
from trainrun_api.stage_config import ConsolidateConfig, Tasks

from trainrun_trainer import consolidate
from trainrun_trainer.consolidate import config_of, kept
from trainrun_trainer.errors import NoUsableCheckpoint, TrainerError
from trainrun_trainer.evaluating.__main__ import read_tasks
from trainrun_trainer.evaluating.curve import TABLE, draw
from trainrun_trainer.start_model import make_start
from trainrun_trainer.stores import open_storage
from trainrun_trainer.units import NOBODY, Units


def run(config: Tasks, inputs: Mapping[str, Any], units: Units = NOBODY) -> dict[str, Any]:
    """Evaluate all of `inputs["checkpoint"]` into `inputs["out"]`, beside `inputs["baseline"]`.

    Without one it is the model that the run started from: step 0, and that model anew where retention took step 0.
    """
    store = inputs["checkpoint"]
    storage = open_storage(store)
    manifests = kept(storage)
    if not manifests:
        raise NoUsableCheckpoint(f"{store}: there is no checkpoint to evaluate")
    config_of(manifests[0])  # adapters are refused before anything is measured
    steps = [manifest["step"] for manifest in manifests]
    with tempfile.TemporaryDirectory() as scratch:
        baseline = inputs.get(BASELINE) or str(Path(scratch) / BASELINE)
        if not inputs.get(BASELINE) and steps[0] == 0:
            consolidate.run(ConsolidateConfig(step=steps.pop(0)), {"checkpoint": store, "out": baseline}, units)
        elif not inputs.get(BASELINE):
            make_start(storage, manifests[0], Path(baseline))
        makers = {f"step-{step}": partial(_make, store, step, units) for step in steps}
        return draw(config, Path(baseline), makers, Path(inputs["out"]), keeps=False, units=units)


def _make(store: str, step: int, units: Units, folder: Path) -> dict[str, Any]:
    made = consolidate.run(ConsolidateConfig(step=step), {"checkpoint": store, "out": str(folder)}, units)
    return {"step": made["step"], "tokens": made["tokens"]}


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate and print the table; exit code 1 and one sentence if something is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m trainrun_trainer.evaluating.checkpoints", description="Evaluate every kept checkpoint of a run."
    )
    parser.add_argument("checkpoint", help="checkpoint.path of the run")
    parser.add_argument("--baseline", help="folder of the unmodified model; left out: what the run started from")
    parser.add_argument("--tasks", type=Path, required=True, help="what is measured, YAML")
    parser.add_argument("--out", required=True, help="folder of curve.json and curve.md")
    asked = parser.parse_args(arguments)
    try:
        run(read_tasks(asked.tasks), {"checkpoint": asked.checkpoint, BASELINE: asked.baseline, "out": asked.out})
    except (TrainerError, OSError) as error:
        sys.exit(str(error))
    print((Path(asked.out) / TABLE).read_text(), end="")


if __name__ == "__main__":
    main()
