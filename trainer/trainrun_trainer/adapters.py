"""LoRA and DoRA adapters: into a frozen model, and out as a folder that peft loads.

peft's layers are put in place, so that the model keeps its class and everything else its view of it. Only the adapters
require gradients; optimizer, checkpoints and export see nothing else. Imported by runs with adapters only: peft takes
half a second.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from torch import nn
from trainrun_api.train_config import LoraConfig

from trainrun_trainer.errors import ConfigError
from trainrun_trainer.export import Content, TensorFile, tokenizer_files
from trainrun_trainer.families import FAMILIES, layers
from trainrun_trainer.logs import log
from trainrun_trainer.parallel import Shard

ADAPTER = "default"
"""peft's name of an only adapter; files do not have it."""
README = """# Adapter

{kind} of rank {rank} on {base}, by trainrun. With peft: `PeftModel.from_pretrained(base_model, this_folder)`.

Merged into the base model, tensor by tensor and in little memory, as a folder that needs no peft:

    python -m trainrun_trainer.lora_merge {base} THIS_FOLDER OUT
"""


def add_adapters(model: Any, lora: LoraConfig, base_folder: str, seed: int) -> None:
    """Freeze the model and put adapters into it, which begin as nothing. ConfigError names an unknown module."""
    targets = lora.target_modules or list(FAMILIES[model.config.model_type].lora_targets)
    _refuse_unknown(targets, model)
    settings = peft.LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout,  # type: ignore[arg-type] # a float does as well
        target_modules=targets, use_dora=lora.use_dora, task_type="CAUSAL_LM", base_model_name_or_path=base_folder,
    )  # fmt: skip
    torch.manual_seed(seed)
    peft.inject_adapter_in_model(settings, model, ADAPTER)
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    log("adapters", trained=sum(trained), frozen=sum(p.numel() for p in model.parameters()) - sum(trained))


def adapter_folder(model: Any, shards: Sequence[Shard], tokenizer_folder: Path) -> Content:
    """What peft loads, with the tokenizer and a word on merging."""
    settings = model.peft_config[ADAPTER]
    tensors = [(_saved_name(shard.name), shard) for shard in shards]
    facts = {name: sorted(v) if isinstance(v, set) else v for name, v in settings.to_dict().items()}
    readme = README.format(
        kind="DoRA" if settings.use_dora else "LoRA", rank=settings.r, base=settings.base_model_name_or_path
    )
    texts = {
        "adapter_config.json": json.dumps({**facts, "inference_mode": True}, indent=1).encode(),
        "README.md": readme.encode(),
    }
    return Content([TensorFile("adapter_model.safetensors", tensors)], texts | tokenizer_files(tokenizer_folder))


def _refuse_unknown(targets: Sequence[str], model: Any) -> None:
    linear = {
        name.rsplit(".", 1)[-1]
        for layer in layers(model)
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear)
    }
    for target in targets:
        if target not in linear:
            raise ConfigError(
                f"config.lora.target_modules: {target} is no linear module of a {model.config.model_type} layer; "
                f"use some of {', '.join(sorted(linear))}"
            )


def _saved_name(name: str) -> str:
    """As peft writes it: its wrapper's prefix, no adapter name; a magnitude is a tensor of its own."""
    magnitude = f"lora_magnitude_vector.{ADAPTER}.weight"
    return "base_model.model." + name.replace(magnitude, "lora_magnitude_vector").replace(f".{ADAPTER}.", ".")
