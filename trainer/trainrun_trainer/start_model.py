"""The model that a run started from, as a folder: what its checkpoints are compared with where step 0 is not kept.

It is the pretrained folder that the configuration names, or random weights, which the seed gives again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainrun_api.train_config import TrainConfig

from trainrun_trainer.base import INDEX, tensor_files
from trainrun_trainer.consolidate import config_of, tokenizer_of
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.model import build_model
from trainrun_trainer.storage import Storage
from trainrun_trainer.tokenizer import load_tokenizer


def make_start(storage: Storage, manifest: Mapping[str, Any], folder: Path) -> None:
    """Fill `folder` for the run that this manifest is of, with the run's own tokenizer. Raises ConfigError."""
    config, tokenizer_folder = config_of(manifest), tokenizer_of(manifest, storage)
    folder.mkdir()
    if config.model.path is None:
        _random_weights(config, tokenizer_folder, folder)
    else:
        _link(Path(config.model.path), folder)
    shutil.copytree(tokenizer_folder, folder, dirs_exist_ok=True)


def _random_weights(config: TrainConfig, tokenizer_folder: Path, folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    vocab_size = max(len(tokenizer), config.data.tokenizer.vocab_size or 0)
    model = build_model(
        config.model, vocab_size, tokenizer.eos_token_id, config.data.row_tokens, config.dropout, config.seed
    )
    model.save_pretrained(folder)


def _link(source: Path, folder: Path) -> None:
    """Its settings and tensors, which may be many gigabytes."""
    try:
        files = [source / "config.json", *tensor_files(source)]
    except (OSError, ValueError, KeyError) as error:
        raise _gone(source, str(error)) from error
    for file in files:
        if not file.exists():
            raise _gone(source, f"it has no {file.name}")
        (folder / file.name).symlink_to(file.absolute())
    if (source / INDEX).exists():
        (folder / INDEX).symlink_to((source / INDEX).absolute())


def _gone(source: Path, why: str) -> ConfigError:
    return ConfigError(
        f"baseline: the run's own start, config.model.path={source}, cannot be read here ({why}); give baseline, the "
        "folder of the unmodified model"
    )
