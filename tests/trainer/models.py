"""Small real models in Hugging Face folders, with a tokenizer trained on the tests' text."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from trainrun_api.data_config import TokenizerConfig
from trainrun_trainer.tokenizer import make_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from tests.trainer.conftest import chapters
from tests.trainer.runs import TINY

VOCAB = 512


@cache
def tokenizer() -> Any:
    """A BPE of 512 tokens."""
    texts = [text for text, _ in zip(chapters(), range(8), strict=False)]
    return make_tokenizer(TokenizerConfig(vocab_size=VOCAB), iter(texts))


def tiny(seed: int, base: Any = None, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """Random weights; with `base`, its weights and a random difference, as tuning leaves one."""
    torch.manual_seed(seed)
    sizes = {**TINY, "vocab_size": VOCAB, "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0, **changes}
    model = LlamaForCausalLM(LlamaConfig(**sizes)).to(dtype).eval()
    if base is not None:
        with torch.no_grad():
            for ours, theirs in zip(model.parameters(), base.parameters(), strict=True):
                ours.copy_(theirs + 0.01 * torch.randn(theirs.shape))
    return model


def save(model: Any, words: Any, folder: Path, max_shard_size: str = "5GB") -> Path:
    """Write model and tokenizer."""
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    words.save_pretrained(folder)
    return folder
