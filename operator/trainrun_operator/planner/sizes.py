"""The shape of the model that a run trains: from its configuration, from a folder, or from the stage that makes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainrun_api.data_config import TokenizerConfig
from trainrun_api.stages import SCHEME, TRAIN_CONFIGURED, spec_of, stage_of
from trainrun_api.train_config import TrainConfig
from trainrun_api.v1alpha1 import TrainingRunSpec

from trainrun_operator.planner.shapes import Shape


class CannotPlan(Exception):
    """The run does not say enough; the message says which option helps."""


def shape_of(spec: TrainingRunSpec, config: TrainConfig, folder: Path) -> Shape:
    """Of the model that is trained; `folder` is that of the run's file. Raises CannotPlan."""
    model = config.model
    if model.architecture is not None:
        return shape_from(model.architecture.model_dump(), _vocabulary(spec, config.data.tokenizer, folder))
    if model.path is None:
        raise CannotPlan("spec.resume.run gives the model, whose sizes are not known here; give --params")
    made_by = _origin(spec, model.path)
    if isinstance(made_by, TrainConfig):
        return shape_of(spec, made_by, folder)
    try:
        sizes = json.loads((folder / made_by / "config.json").read_text(encoding="utf-8"))
        return shape_from(sizes, int(sizes["vocab_size"]))
    except (OSError, ValueError, KeyError) as error:
        raise CannotPlan(
            f"config.model.path={model.path}: its sizes cannot be read here ({error}); give --params"
        ) from error


def _vocabulary(spec: TrainingRunSpec, tokenizer: TokenizerConfig, folder: Path) -> int:
    if tokenizer.vocab_size is not None:
        return tokenizer.vocab_size
    made_by = _origin(spec, str(tokenizer.path))
    if isinstance(made_by, TrainConfig):
        return _vocabulary(spec, made_by.data.tokenizer, folder)
    try:
        text = (folder / made_by / "tokenizer.json").read_text(encoding="utf-8")
        return len(json.loads(text)["model"]["vocab"])
    except (OSError, ValueError, KeyError) as error:
        raise CannotPlan(
            f"config.data.tokenizer.path={tokenizer.path}: its vocabulary cannot be read here ({error}); give --params"
        ) from error


def _origin(spec: TrainingRunSpec, place: str) -> TrainConfig | str:
    """The training whose model and tokenizer lie there, or the folder, if it is no stage's."""
    while place.startswith(SCHEME):
        stage = stage_of(spec, place.removeprefix(SCHEME).partition("/")[0])
        config = spec_of(spec, stage.name).config
        if stage.kind in TRAIN_CONFIGURED and config is not None:
            return config
        if stage.kind == "consolidate":
            place = str(stage.config["checkpoint"])
        elif stage.kind == "merge":
            place = str(stage.config["models"][0])
        else:
            raise CannotPlan(f"{place}: a stage of kind {stage.kind} makes no model; give --params")
    return place


def shape_from(sizes: Mapping[str, Any], vocabulary: int) -> Shape:
    """From transformers' words. Raises KeyError."""
    heads = int(sizes["num_attention_heads"])
    return Shape(
        hidden=int(sizes["hidden_size"]),
        intermediate=int(sizes["intermediate_size"]),
        layers=int(sizes["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(sizes.get("num_key_value_heads") or heads),
        vocabulary=vocabulary,
        is_tied=bool(sizes.get("tie_word_embeddings", False)),
    )
