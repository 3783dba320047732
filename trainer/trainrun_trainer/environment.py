"""What the operator (or local mode) and torchelastic tell a worker, read once from the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainrun_api.contract import CheckpointLayout, Env
from trainrun_api.train_config import TrainConfig
from trainrun_api.v1alpha1 import CheckpointSpec

from trainrun_trainer.claims import Owner
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.resume import ResumePolicy
from trainrun_trainer.settings import parse


@dataclass(frozen=True)
class Environment:
    """A worker's orders."""

    run: str
    owner: Owner
    config: TrainConfig
    checkpoint: CheckpointSpec
    resume: ResumePolicy
    accelerator: str
    pod_index: int
    local_rank: int
    progress_dir: str | None
    faults_dir: str | None


def read_environment(env: Mapping[str, str]) -> Environment:
    """Parse the contract's variables. Raises ConfigError naming the field as the user wrote it."""
    path = env.get(Env.CHECKPOINT_PATH, "")
    config = parse(TrainConfig, _json(env, Env.CONFIG), "config.")
    checkpoint = parse(CheckpointSpec, {**_json(env, Env.CHECKPOINT), "path": path}, "checkpoint.")
    resume = ResumePolicy.from_dict(_json(env, Env.RESUME))
    if resume.start == "Run":
        config = from_result(config, resume)
    attempt = int(env.get(Env.ATTEMPT, "0"))
    generation = int(env.get("TORCHELASTIC_RESTART_COUNT", "0"))
    return Environment(
        run=env.get(Env.RUN, "run"), owner=Owner(env.get(Env.RUN_UID, "local"), attempt, generation),
        config=config, checkpoint=checkpoint, resume=resume,
        accelerator=env.get(Env.ACCELERATOR, "cpu"), pod_index=int(env.get(Env.POD_INDEX, "0")),
        local_rank=int(env.get("LOCAL_RANK", "0")),
        progress_dir=env.get(Env.PROGRESS_DIR), faults_dir=env.get(Env.FAULTS),
    )  # fmt: skip


def from_result(config: TrainConfig, resume: ResumePolicy) -> TrainConfig:
    """The configuration with the model and tokenizer of another run's export. ConfigError if it has no such model."""
    where = f"resume.run={resume.run}"
    if resume.path is None or resume.path.startswith("s3://"):
        raise ConfigError(
            f"{where}: its checkpoint.path={resume.path} is no folder; copy its export/ to a volume of the workers and "
            "name that as config.model.path and config.data.tokenizer.path"
        )
    folder = Path(resume.path) / CheckpointLayout.EXPORT
    if not (folder / CheckpointLayout.MANIFEST).exists():
        raise ConfigError(f"{where}: {folder} is no complete export; mount that run's volume at the same place")
    if (folder / "adapter_config.json").exists():
        raise ConfigError(
            f"{where}: {folder} holds adapters and no model; merge them with python -m trainrun_trainer.lora_merge and "
            "name the merged folder as config.model.path"
        )
    model = config.model.model_copy(update={"path": str(folder)})
    tokenizer = config.data.tokenizer.model_copy(update={"path": str(folder)})
    return config.model_copy(update={"model": model, "data": config.data.model_copy(update={"tokenizer": tokenizer})})


def current() -> Environment:
    """The environment of this process."""
    return read_environment(os.environ)


def _json(env: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        value = json.loads(env.get(name) or "{}")
    except ValueError as error:
        raise ConfigError(f"{name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{name} is {type(value).__name__}, expected a JSON object")
    return value
