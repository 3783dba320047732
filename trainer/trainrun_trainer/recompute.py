"""Activation checkpointing: layers forget what they computed and compute it again in the backward pass.

It costs a second forward pass of these layers and saves the memory of all that lies inside them. The result is the
same, bit for bit: random draws of the first time are repeated.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from trainrun_trainer.errors import ConfigError
from trainrun_trainer.families import layers


def recompute_layers(model: Any, setting: str) -> None:
    """As config.activation_checkpointing says: none, full, or `every N`. Before sharding, which is to stay outside."""
    if setting == "none":
        return
    every = 1 if setting == "full" else int(setting.removeprefix("every "))
    found = layers(model)
    if every > len(found):
        raise ConfigError(
            f"config.activation_checkpointing={setting}: the model has {len(found)} layers, so none would be computed "
            f"again; use every {len(found)} or a smaller number, full, or none"
        )
    for number, layer in enumerate(found, 1):
        if number % every == 0:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
