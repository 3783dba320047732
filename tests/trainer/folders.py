"""Small pretrained models of every family, in folders as Hugging Face writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from trainrun_trainer.families import FAMILIES

VOCABULARY = 1100
"""More than the tokenizers of the tests have."""
_LLAMA = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
MODELS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _LLAMA),
    "mistral": ("mistral", {**_LLAMA, "head_dim": 16, "sliding_window": None}),
    "mistral with a window": ("mistral", {**_LLAMA, "head_dim": 16, "sliding_window": 4}),
    "gpt_neox": (
        "gpt_neox",
        {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4},
    ),
    "falcon 7b": ("falcon", {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": False}),
    "falcon 40b": (
        "falcon",
        {
            "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_kv_heads": 2, "alibi": False,
            "new_decoder_architecture": True,
        },
    ),
    "mpt": ("mpt", {"d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 128}),
}  # fmt: skip
"""Family and sizes, by what is special."""


def save_model(folder: Path, kind: str, **changes: Any) -> Path:
    """A seeded model in fp32; norms and biases are random too, so that no tensor looks like another."""
    family, sizes = MODELS[kind]
    model_class = getattr(transformers, FAMILIES[family].model_class)
    torch.manual_seed(3)
    model = model_class(model_class.config_class(vocab_size=VOCABULARY, **{**sizes, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    model.save_pretrained(folder)
    return folder
