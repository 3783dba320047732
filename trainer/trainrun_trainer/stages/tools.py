"""One runner per kind that is not training: the programs that are also commands, with a stage's configuration.

Each writes below `out` and returns where below it the stage's result lies ("" for all of it). They are imported when
they run: torch and model classes take seconds, and a stage that is done already asks for none of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel
from trainrun_api.stage_config import (
    ConsolidateConfig,
    ConsolidateStage,
    EvaluateStage,
    MergeStage,
    Tasks,
)

from trainrun_trainer.units import Units

MODEL = "model"
M = TypeVar("M", bound=BaseModel)


def run_evaluate(config: EvaluateStage, out: Path, units: Units) -> str:
    """A model beside its baseline, or the curve of a store's checkpoints."""
    from trainrun_trainer.evaluating import checkpoints
    from trainrun_trainer.evaluating import run as evaluating

    tasks = _part(Tasks, config)
    if config.checkpoints is not None:
        checkpoints.run(tasks, {"checkpoint": config.checkpoints, "baseline": config.baseline, "out": str(out)}, units)
    else:
        evaluating.run(tasks, {"model": config.model, "baseline": config.baseline, "out": str(out)}, units)
    return ""


def run_consolidate(config: ConsolidateStage, out: Path, units: Units) -> str:
    """A checkpoint as a model folder."""
    from trainrun_trainer import consolidate

    inputs = {"checkpoint": config.checkpoint, "out": str(out / MODEL)}
    consolidate.run(_part(ConsolidateConfig, config), inputs, units)
    return MODEL


def run_merge(config: MergeStage, out: Path, units: Units) -> str:
    """Several models as one, and the table over t beside it if it is wanted; or adapters and their model."""
    from trainrun_trainer import lora_merge
    from trainrun_trainer.merging import merge, sweep

    if config.adapter is not None:
        lora_merge.merge(Path(config.models[0]), Path(config.adapter), out / MODEL, units)
        return MODEL
    if config.sweep is not None:
        sweep.run(
            config.merge, config.sweep.over, config.sweep.tasks, {"models": config.models, "out": str(out)}, units
        )
    merge.run(config.merge, {"models": config.models, "out": str(out / MODEL)}, units)
    return MODEL


def _part(model: type[M], whole: M) -> M:
    """What a stage's configuration has of the program's own."""
    return model.model_validate(whole.model_dump(include=set(model.model_fields)))
