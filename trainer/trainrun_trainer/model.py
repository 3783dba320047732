"""The model: a Llama with seeded random weights, or a local Hugging Face folder whose every key must match.

What differs between families is in families.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from trainrun_api.train_config import ModelConfig
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama as _preloaded  # noqa: F401 - the slow import, before a fork

from trainrun_trainer.attention import DOCUMENTS, path_on, register
from trainrun_trainer.base import read_settings, refuse_unreadable_weights
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.families import FAMILIES, family_of, refuse_what_cannot_be_isolated, set_dropout
from trainrun_trainer.rows import Slot
from trainrun_trainer.vocabulary import refuse_too_many_tokens

ISOLATION_TOLERANCE = 1e-5
"""Largest difference of logits, relative to the largest logit if that is above 1."""
PROBE_TOKENS = (11, 7)
"""Lengths of the two documents of the isolation test."""


def build_model(
    config: ModelConfig, vocab_size: int, end_of_text: int, row_tokens: int, dropout: float, seed: int
) -> Any:
    """The whole model in fp32 on the CPU, in training mode."""
    register()
    model = (
        _load_folder(config.path, vocab_size, dropout)
        if config.path is not None
        else _random_start(config, vocab_size, end_of_text, row_tokens, dropout, seed)
    )
    return model.train()


def refuse_if_documents_leak(model: Any, vocab_size: int, device: torch.device) -> None:
    """Pack two documents and compare with each alone; ConfigError if one sees the other.

    The model may lie elsewhere: it is told of the documents as it will be on `device`, where it trains.
    """
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(0, vocab_size, (1, length), generator=generator) for length in PROBE_TOKENS]
    places = [torch.arange(length)[None] for length in PROBE_TOKENS]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        packed = forward(model, torch.cat(documents, 1), torch.cat(places, 1), device)
        alone = torch.cat([forward(model, d, p, device) for d, p in zip(documents, places, strict=True)], 1)
    model.train(was_training)
    scale = max(1.0, float(alone.abs().max()))
    worst = float((packed - alone).abs().max())
    if not worst <= ISOLATION_TOLERANCE * scale:
        raise ConfigError(
            f"config.model: {type(model).__name__} lets packed documents see each other on {device.type} (logits "
            f"differ by {worst:.2e}, expected at most {ISOLATION_TOLERANCE * scale:.0e}); this model cannot train on "
            "packed rows"
        )


def forward(
    model: Any, input_ids: torch.Tensor, position_ids: torch.Tensor, device: torch.device | None = None
) -> torch.Tensor:
    """Logits [rows, tokens, vocabulary]; documents begin where `position_ids` are 0.

    They are kept apart as on `device`; None: where the positions lie.
    """
    isolated = FAMILIES[model.config.model_type].isolation(position_ids, device or position_ids.device)
    logits: torch.Tensor = model(input_ids=input_ids, use_cache=False, **isolated).logits
    return logits


def predict(model: Any, slot: Slot) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and their targets: of all positions, or of those that have a target where many have none.

    Of instruction rows only responses are learned. The output layer of a small model is a fifth of it, and the logits
    of a large vocabulary are the largest buffer of a step.
    """
    if slot.learned is None:
        return forward(model, slot.input_ids, slot.position_ids), slot.targets
    places = slot.learned

    def pick(head: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (inputs[0].flatten(0, 1).index_select(0, places),)

    hook = model.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        logits = forward(model, slot.input_ids, slot.position_ids)
    finally:
        hook.remove()
    return logits, slot.targets.flatten().index_select(0, places)


def attention_of(model: Any, device: torch.device) -> str:
    """The attention path, for the numerics fingerprint."""
    named = FAMILIES[model.config.model_type].attention
    return path_on(device) if named == DOCUMENTS else named


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
            **sizes, vocab_size=vocab_size, attention_dropout=dropout, attn_implementation=FAMILIES["llama"].attention,
            rope_parameters={"rope_type": "default", "rope_theta": rope_theta}, max_position_embeddings=row_tokens,
            bos_token_id=end_of_text, eos_token_id=end_of_text, pad_token_id=None, dtype="float32",
        )
    )  # fmt: skip


def _load_folder(path: str, vocab_size: int, dropout: float) -> Any:
    where = f"config.model.path={path}"
    family = family_of(read_settings(Path(path), where).get("model_type"), where)
    refuse_unreadable_weights(Path(path), where)
    model_class = getattr(transformers, family.model_class)
    config = model_class.config_class.from_pretrained(path, local_files_only=True)
    refuse_what_cannot_be_isolated(config, where)
    set_dropout(config, family, dropout, where)
    model, info = model_class.from_pretrained(
        path, config=config, dtype=torch.float32, attn_implementation=family.attention, local_files_only=True,
        output_loading_info=True, use_safetensors=True, ignore_mismatched_sizes=True,
    )  # fmt: skip
    wrong = {kind: sorted(map(str, info[kind])) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    wrong = {kind: keys for kind, keys in wrong.items() if keys}
    if wrong:
        raise ConfigError(f"{where}: its tensors are not the model's: {json.dumps(wrong)[:600]}")
    refuse_too_many_tokens("config.data.tokenizer", vocab_size, model.config.vocab_size, where)
    return model
