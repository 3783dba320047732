"""Whether the folder of model.path can be trained by this configuration: asked before any text is read.

Building the model would find the same, but after the text was prepared, and on every rank. Called by rank 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainrun_api.train_config import TrainConfig

from trainrun_trainer.base import read_settings, refuse_unreadable_weights
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.families import family_of

CONTEXT_NAMES = ("max_position_embeddings", "max_seq_len")
"""What the context is called in config.json: most families, and MPT."""


def refuse_unfit_model(config: TrainConfig) -> None:
    """ConfigError if the folder, when there is one, cannot be loaded, or is too small for the rows."""
    if config.model.path is None:
        return
    folder, where = Path(config.model.path), f"config.model.path={config.model.path}"
    settings = read_settings(folder, where)
    family_of(settings.get("model_type"), where)
    _refuse_rows_beyond_context(config.data.row_tokens, settings, where)
    refuse_unreadable_weights(folder, where)


def _refuse_rows_beyond_context(row_tokens: int, settings: Mapping[str, Any], where: str) -> None:
    """A model has no positions for what lies behind its context."""
    for name in CONTEXT_NAMES:
        limit = settings.get(name)
        if isinstance(limit, int) and row_tokens > limit:
            raise ConfigError(
                f"config.data.row_tokens={row_tokens} is longer than the context of {where} ({name}={limit}); "
                f"use {limit} or less"
            )
