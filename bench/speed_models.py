"""The models and rows that the trainer's benches share: Llamas of 7 and 50 million parameters on real text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from side_by_side import TEXT
from trainrun_api.data_config import TokenizerConfig
from trainrun_trainer.tokenizer import make_tokenizer

VOCABULARY = 4096
ROW_TOKENS = 256
SIZES: dict[str, dict[str, Any]] = {
    "7M": {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6,
           "num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": False},
    "50M": {"hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 9,
            "num_attention_heads": 10, "num_key_value_heads": 10, "tie_word_embeddings": False},
}  # fmt: skip
"""6.8 and 49.9 million parameters, embeddings included."""


def workload(size: str, precision: str, steps: int, step_rows: int) -> dict[str, Any]:
    """A TrainConfig: so many steps of `step_rows` rows of 256 tokens, four rows at a time."""
    return {
        "model": {"architecture": SIZES[size]},
        "data": {
            "sources": {"domain": {"path": str(TEXT / "domain")}},
            "tokenizer": {"vocab_size": VOCABULARY},
            "row_tokens": ROW_TOKENS,
        },
        "total_steps": steps,
        "global_batch_rows": step_rows,
        "micro_batch_rows": 4,
        "precision": precision,
        "optimizer": {"lr": 1e-3},
        "schedule": {"warmup_steps": 2},
    }


def save_tokenizer(folder: Path) -> None:
    """A byte-level BPE of the examples' text, made once, so that all sides load the same file."""
    texts = (path.read_text() for path in sorted(TEXT.glob("*/*.txt")))
    make_tokenizer(TokenizerConfig(vocab_size=VOCABULARY), texts).save_pretrained(folder)
