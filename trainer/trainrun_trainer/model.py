"""The model: a Llama with seeded random weights, or a local Hugging Face folder whose every key must match."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from trainrun_api.train_config import ModelConfig
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama as _preloaded  # noqa: F401 - the slow import, before a fork

from trainrun_trainer.errors import ConfigError

ATTENTION = "sdpa"
ISOLATION_TOLERANCE = 1e-5
"""Largest difference of logits, relative to the largest logit if that is above 1."""
PROBE_TOKENS = (11, 7)
"""Lengths of the two documents of the isolation test."""


def build_model(
    config: ModelConfig, vocab_size: int, end_of_text: int, row_tokens: int, dropout: float, seed: int
) -> Any:
    """The whole model in fp32 on the CPU, in training mode."""
    model = (
        _load_folder(config.path, vocab_size, dropout)
        if config.path is not None
        else _random_start(config, vocab_size, end_of_text, row_tokens, dropout, seed)
    )
    return model.train()


def refuse_if_documents_leak(model: Any, vocab_size: int) -> None:
    """Pack two documents and compare with each alone; ConfigError if one sees the other.

    Positions restart with a document and no attention mask is given: an all-ones mask with packed rows
    would silently switch the isolation off.
    """
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(0, vocab_size, (1, length), generator=generator) for length in PROBE_TOKENS]
    places = [torch.arange(length)[None] for length in PROBE_TOKENS]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        packed = forward(model, torch.cat(documents, 1), torch.cat(places, 1))
        alone = torch.cat([forward(model, d, p) for d, p in zip(documents, places, strict=True)], 1)
    model.train(was_training)
    scale = max(1.0, float(alone.abs().max()))
    worst = float((packed - alone).abs().max())
    if not worst <= ISOLATION_TOLERANCE * scale:
        raise ConfigError(
            f"config.model: {type(model).__name__} lets packed documents see each other (logits differ by {worst:.2e}, "
            f"expected at most {ISOLATION_TOLERANCE * scale:.0e}); this model cannot train on packed rows"
        )


def forward(model: Any, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
    """Logits [rows, tokens, vocabulary]."""
    logits: torch.Tensor = model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
    return logits


def _random_start(
    config: ModelConfig, vocab_size: int, end_of_text: int, row_tokens: int, dropout: float, seed: int
) -> nn.Module:
    if config.architecture is None:
        raise ConfigError("config.model: exactly one of architecture and path is needed, and neither is given")
    sizes = config.architecture.model_dump()
    rope_theta = sizes.pop("rope_theta")
    if sizes["hidden_size"] % sizes["num_attention_heads"]:
        raise ConfigError(
            f"config.model.architecture.num_attention_heads={sizes['num_attention_heads']} does not divide "
            f"hidden_size={sizes['hidden_size']}; use a divisor"
        )
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(  # type: ignore[call-arg]
            **sizes, vocab_size=vocab_size, attention_dropout=dropout, attn_implementation=ATTENTION,
            rope_parameters={"rope_type": "default", "rope_theta": rope_theta}, max_position_embeddings=row_tokens,
            bos_token_id=end_of_text, eos_token_id=end_of_text, pad_token_id=None, dtype="float32",
        )
    )  # fmt: skip


def _load_folder(path: str, vocab_size: int, dropout: float) -> Any:
    try:
        model_type = json.loads((Path(path) / "config.json").read_text()).get("model_type")
    except (OSError, ValueError) as error:
        raise ConfigError(f"config.model.path={path}: its config.json cannot be read ({error})") from error
    if model_type != "llama":
        raise ConfigError(f"config.model.path={path}: model_type={model_type}; this version trains llama")
    model: Any
    info: Any
    model, info = LlamaForCausalLM.from_pretrained(  # type: ignore[misc]
        path, dtype=torch.float32, attn_implementation=ATTENTION, attention_dropout=dropout,
        local_files_only=True, output_loading_info=True, use_safetensors=True,
    )  # fmt: skip
    wrong = {kind: sorted(map(str, info[kind])) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    wrong = {kind: keys for kind, keys in wrong.items() if keys}
    if wrong:
        raise ConfigError(f"config.model.path={path}: its tensors are not the model's: {json.dumps(wrong)[:600]}")
    if vocab_size > model.config.vocab_size:
        raise ConfigError(
            f"config.data.tokenizer has {vocab_size} tokens but config.model.path={path} embeds "
            f"{model.config.vocab_size}; use the tokenizer of that folder"
        )
    return model
