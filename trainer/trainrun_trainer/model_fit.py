"""Whether the folder of model.path can be trained by this configuration: asked before any text is read.

Building the model would find most of it, but after the text was prepared, and on every rank; that the tokens are
another model's is found here only. Called by rank 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainrun_api.train_config import TrainConfig
from transformers import AutoTokenizer

from trainrun_trainer.base import read_settings, refuse_unreadable_weights
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.families import family_of
from trainrun_trainer.logs import log
from trainrun_trainer.tokenizer import load_tokenizer
from trainrun_trainer.vocabulary import Vocabulary, differing, refuse_too_many_tokens, told

CONTEXT_NAMES = ("max_position_embeddings", "max_seq_len")
"""What the context is called in config.json: most families, and MPT."""
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")
"""One of them is there where there is a tokenizer."""


def refuse_unfit_model(config: TrainConfig) -> None:
    """ConfigError if the folder, when there is one, cannot be loaded, or is too small for the rows or the tokens."""
    if config.model.path is None:
        return
    folder, where = Path(config.model.path), f"config.model.path={config.model.path}"
    settings = read_settings(folder, where)
    family_of(settings.get("model_type"), where)
    _refuse_rows_beyond_context(config.data.row_tokens, settings, where)
    if config.data.tokenizer.vocab_size is not None:
        _refuse_too_many(config, config.data.tokenizer.vocab_size, settings)
    refuse_unreadable_weights(folder, where)


def refuse_another_tokenizer(config: TrainConfig, words: Path) -> None:
    """ConfigError if the tokenizer in the folder `words` numbers its tokens otherwise than the model's own.

    Added tokens may differ, and a model folder may be without a tokenizer.
    """
    if config.model.path is None:
        return
    folder, where = Path(config.model.path), f"config.model.path={config.model.path}"
    ours = Vocabulary.of(load_tokenizer(words))
    _refuse_too_many(config, ours.size, read_settings(folder, where))
    theirs = _own_vocabulary(folder)
    differ = differing(ours, theirs) if theirs is not None else []
    if theirs is not None and differ:
        raise ConfigError(
            f"{_field(config)} gives another tokenizer than that in {where} ({told(differ, ours, theirs)}), so that "
            f"the model would learn noise; use config.data.tokenizer.path={folder}, or take the tokenizer out of that "
            "folder if the model was not trained with it"
        )


def _own_vocabulary(folder: Path) -> Vocabulary | None:
    """None if there is none that this image can load: the model trains without it."""
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        return None
    try:
        own = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the libraries below raise what they like, Exception itself included
        first = next(iter(str(error).splitlines()), "")
        log("tokenizer-unchecked", folder=str(folder), message=f"it cannot be loaded, so nothing is compared ({first})")
        return None
    return Vocabulary.of(own)


def _field(config: TrainConfig) -> str:
    """What names the tokenizer, as the user wrote it."""
    words = config.data.tokenizer
    name, value = ("path", words.path) if words.path is not None else ("vocab_size", words.vocab_size)
    return f"config.data.tokenizer.{name}={value}"


def _refuse_too_many(config: TrainConfig, num_tokens: int, settings: Mapping[str, Any]) -> None:
    embedded = settings.get("vocab_size")
    if isinstance(embedded, int):
        refuse_too_many_tokens(_field(config), num_tokens, embedded, f"config.model.path={config.model.path}")


def _refuse_rows_beyond_context(row_tokens: int, settings: Mapping[str, Any], where: str) -> None:
    """A model has no positions for what lies behind its context."""
    for name in CONTEXT_NAMES:
        limit = settings.get(name)
        if isinstance(limit, int) and row_tokens > limit:
            raise ConfigError(
                f"config.data.row_tokens={row_tokens} is longer than the context of {where} ({name}={limit}); "
                f"use {limit} or less"
            )
