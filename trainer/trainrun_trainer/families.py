"""The model families that can be trained, and what differs between them. A new family is a row of FAMILIES.

Rows are packed, so the first question to a family is what keeps its documents apart. Where transformers lets others
compute the attention, `attention.py` does, and positions that restart with each document tell it all. Falcon and MPT
ignore that, and need a mask: one of floats, because MPT reads a mask of booleans the wrong way round without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from trainrun_trainer.attention import DOCUMENTS, by_documents
from trainrun_trainer.errors import ConfigError

Isolation = Callable[[torch.Tensor, torch.device], dict[str, Any]]
"""Positions [rows, tokens] and the device that trains -> what the model is given beside the tokens."""


def by_mask(position_ids: torch.Tensor, device: torch.device) -> dict[str, Any]:
    """A float mask [rows, 1, tokens, tokens]: 0 within the document and backwards, else the smallest number."""
    document = (position_ids == 0).cumsum(1)
    tokens = position_ids.shape[1]
    is_seen = (document[:, :, None] == document[:, None, :]).tril()
    lowest = torch.finfo(torch.float32).min
    mask = torch.zeros(is_seen.shape, device=position_ids.device).masked_fill_(~is_seen, lowest)
    return {"attention_mask": mask.view(-1, 1, tokens, tokens)}


def by_mask_and_positions(position_ids: torch.Tensor, device: torch.device) -> dict[str, Any]:
    """Both: rotary positions restart as well."""
    return {**by_mask(position_ids, device), "position_ids": position_ids}


@dataclass(frozen=True)
class Family:
    """How the models of one `model_type` are built and trained."""

    model_class: str
    """Of transformers."""
    layer_class: str
    """A decoder layer: the unit of sharding and of activation checkpointing."""
    isolation: Isolation
    lora_targets: tuple[str, ...]
    """Projections of queries and values, or what holds them."""
    attention: str
    fused: str | None = None
    """What its classes of norms and MLPs begin with, if fused.py computes them and its rotary positions."""
    has_dropout: bool = True
    """Its attention applies the configuration's attention_dropout."""
    saved_names: Mapping[str, str] = field(default_factory=dict)
    """Tensors that have another name in files."""


FAMILIES: Mapping[str, Family] = {
    "llama": Family(
        "LlamaForCausalLM", "LlamaDecoderLayer", by_documents, ("q_proj", "v_proj"), DOCUMENTS, "Llama"
    ),
    "mistral": Family(
        "MistralForCausalLM", "MistralDecoderLayer", by_documents, ("q_proj", "v_proj"), DOCUMENTS, "Mistral"
    ),
    "gpt_neox": Family(
        "GPTNeoXForCausalLM", "GPTNeoXLayer", by_documents, ("query_key_value",), DOCUMENTS,
        saved_names={"lm_head.weight": "embed_out.weight"},
    ),
    "falcon": Family(
        "FalconForCausalLM", "FalconDecoderLayer", by_mask_and_positions, ("query_key_value",), "sdpa",
        has_dropout=False,
    ),
    "mpt": Family("MptForCausalLM", "MptBlock", by_mask, ("Wqkv",), "eager", has_dropout=False),
}  # fmt: skip
"""By the model_type of config.json."""


def family_of(model_type: object, where: str) -> Family:
    """The family; ConfigError naming the known ones. `where` begins the sentence."""
    family = FAMILIES.get(str(model_type))
    if family is None:
        raise ConfigError(f"{where}: model_type={model_type}; this version trains {', '.join(sorted(FAMILIES))}")
    return family


def refuse_what_cannot_be_isolated(config: Any, where: str) -> None:
    """ConfigError for a Falcon with alibi: its biases take no mask of documents."""
    if config.model_type == "falcon" and config.alibi:
        raise ConfigError(
            f"{where}: a falcon with alibi=true cannot keep the documents of a packed row apart; "
            "use a falcon with rotary positions (alibi=false)"
        )


def set_dropout(config: Any, family: Family, dropout: float, where: str) -> None:
    """Write the dropout into a model's configuration; ConfigError if its attention would ignore it."""
    if family.has_dropout:
        config.attention_dropout = dropout
    elif dropout:
        raise ConfigError(f"config.dropout={dropout}: the attention of {where} applies none; use 0")


def layers(model: Any) -> list[Any]:
    """The decoder layers, in order."""
    name = FAMILIES[model.config.model_type].layer_class
    return [module for module in model.modules() if any(base.__name__ == name for base in type(module).__mro__)]
