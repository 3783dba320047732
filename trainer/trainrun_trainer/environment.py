"""What the operator (or local mode) and torchelastic tell a worker, read once from the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainrun_api.contract import CheckpointLayout, Env
from trainrun_api.stage_config import STAGE_CONFIGS
from trainrun_api.stages import TRAIN, TRAIN_CONFIGURED
from trainrun_api.train_config import TrainConfig
from trainrun_api.v1alpha1 import CheckpointSpec

from trainrun_trainer.claims import Owner
from trainrun_trainer.corpus.texts import Texts
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.resume import ResumePolicy
from trainrun_trainer.settings import parse
from trainrun_trainer.stages.records import Records
from trainrun_trainer.storage import LocalDirectory

KINDS = (*sorted(TRAIN_CONFIGURED), *STAGE_CONFIGS)


@dataclass(frozen=True)
class Stage:
    """A stage of a run of several, and the folder that all of them share."""

    name: str
    kind: str
    root: str


@dataclass(frozen=True)
class ToolEnvironment:
    """Orders of the one worker of a stage that is not training."""

    run: str
    owner: Owner
    stage: Stage
    config: dict[str, Any]
    progress_dir: str | None


@dataclass(frozen=True)
class Environment:
    """Orders of a worker that trains."""

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
    stage: Stage | None = None
    """None: the run is nothing but training, in checkpoint.path itself."""
    data_path: str | None = None
    """Where the prepared data lies; None: in checkpoint.path."""
    texts: Texts | None = None
    """Which text it is prepared from; None: its configuration alone names it."""


def stage_of(env: Mapping[str, str]) -> Stage | None:
    """Which stage of several this is. Raises ConfigError for a kind that this version does not have."""
    kind = env.get(Env.STAGE_KIND)
    if not kind:
        return None
    name = env.get(Env.STAGE, "")
    if kind not in KINDS:
        raise ConfigError(
            f"stages[{name}].kind={kind}: this trainer has {', '.join(KINDS)}; use an image of the operator's version"
        )
    return Stage(name, kind, env.get(Env.CHECKPOINT_PATH, ""))


def read_tool_environment(env: Mapping[str, str], stage: Stage) -> ToolEnvironment:
    """Parse the contract's variables. Raises ConfigError."""
    if int(env.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"stage {stage.name} of kind {stage.kind} has {env['WORLD_SIZE']} processes, expected 1")
    return ToolEnvironment(
        env.get(Env.RUN, "run"), _owner(env), stage, _json(env, Env.CONFIG), env.get(Env.PROGRESS_DIR)
    )


def read_environment(env: Mapping[str, str]) -> Environment:
    """Parse the contract's variables. Raises ConfigError naming the field as the user wrote it."""
    path = env.get(Env.CHECKPOINT_PATH, "")
    config = parse(TrainConfig, _json(env, Env.CONFIG), "config.")
    checkpoint = parse(CheckpointSpec, {**_json(env, Env.CHECKPOINT), "path": path}, "checkpoint.")
    resume = ResumePolicy.from_dict(_json(env, Env.RESUME))
    if resume.start == "Run":
        config = from_result(config, resume)
    return Environment(
        run=env.get(Env.RUN, "run"), owner=_owner(env),
        config=config, checkpoint=checkpoint, resume=resume,
        accelerator=env.get(Env.ACCELERATOR, "cpu"), pod_index=int(env.get(Env.POD_INDEX, "0")),
        local_rank=int(env.get("LOCAL_RANK", "0")),
        progress_dir=env.get(Env.PROGRESS_DIR), faults_dir=env.get(Env.FAULTS),
        stage=stage_of(env),
    )  # fmt: skip


def from_result(config: TrainConfig, resume: ResumePolicy) -> TrainConfig:
    """The configuration with the model and tokenizer of another run's export. ConfigError if it has no such model."""
    where = f"resume.run={resume.run}"
    if resume.path is None or resume.path.startswith("s3://"):
        raise ConfigError(
            f"{where}: its checkpoint.path={resume.path} is no folder; copy its export/ to a volume of the workers and "
            "name that as config.model.path and config.data.tokenizer.path"
        )
    folder = _result_folder(Path(resume.path), resume.stage, where)
    if (folder / "adapter_config.json").exists():
        raise ConfigError(
            f"{where}: {folder} holds adapters and no model; merge them with python -m trainrun_trainer.lora_merge and "
            "name the merged folder as config.model.path"
        )
    model = config.model.model_copy(update={"path": str(folder)})
    tokenizer = config.data.tokenizer.model_copy(update={"path": str(folder)})
    return config.model_copy(update={"model": model, "data": config.data.model_copy(update={"tokenizer": tokenizer})})


def _result_folder(path: Path, stage: str | None, where: str) -> Path:
    """A run's export, or what the record of one of its stages says. Raises ConfigError."""
    folder, mark = path / CheckpointLayout.EXPORT, CheckpointLayout.MANIFEST
    if stage is not None:
        place = path / CheckpointLayout.STAGES / stage
        record = Records(LocalDirectory(path), stage).done()
        if record is None and (place / CheckpointLayout.STAGE_RECORD).exists():
            raise ConfigError(f"{where}: its stage {stage} is being done again in {place}; start when it is done")
        folder, mark = place if record is None else path / (record.result or ""), ""  # a record tells that it is whole
    if not (folder / mark).exists():
        raise ConfigError(f"{where}: {folder} is no complete export; mount that run's volume at the same place")
    return folder


def current() -> Environment | ToolEnvironment:
    """The environment of this process."""
    stage = stage_of(os.environ)
    if stage is not None and stage.kind != TRAIN:
        return read_tool_environment(os.environ, stage)
    return read_environment(os.environ)


def _owner(env: Mapping[str, str]) -> Owner:
    attempt, generation = int(env.get(Env.ATTEMPT, "0")), int(env.get("TORCHELASTIC_RESTART_COUNT", "0"))
    return Owner(env.get(Env.RUN_UID, "local"), attempt, generation)


def _json(env: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        value = json.loads(env.get(name) or "{}")
    except ValueError as error:
        raise ConfigError(f"{name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{name} is {type(value).__name__}, expected a JSON object")
    return value
