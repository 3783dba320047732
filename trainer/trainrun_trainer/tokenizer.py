"""The run's tokenizer: a byte-level BPE trained on the run's own text, or a folder that transformers loads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from trainrun_api.data_config import TokenizerConfig
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from trainrun_trainer.errors import ConfigError

END_OF_TEXT = "<|endoftext|>"


def make_tokenizer(config: TokenizerConfig, texts: Iterator[str]) -> Any:
    """Train or load. `texts` is read only for training; the same texts give the same tokenizer."""
    if config.path is not None:
        return load_tokenizer(config.path)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size or 0, special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe, eos_token=END_OF_TEXT, bos_token=END_OF_TEXT
    )


def load_tokenizer(path: str | os.PathLike[str]) -> Any:
    """Load from a local folder. Raises ConfigError if there is none, or if it has no end-of-text token."""
    if not Path(path).is_dir():
        raise ConfigError(f"config.data.tokenizer.path={path}: no such folder")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"config.data.tokenizer.path={path}: transformers cannot load it ({error})") from error
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"config.data.tokenizer.path={path}: the tokenizer has no eos token, which ends documents")
    return tokenizer
