"""Activation checkpointing changes memory and time, and no bit of anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trainrun_api.train_config import LoraConfig, ModelConfig
from trainrun_trainer.adapters import add_adapters
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.model import build_model
from trainrun_trainer.recompute import recompute_layers
from trainrun_trainer.rows import Slot
from trainrun_trainer.step import slot_backward

from tests.trainer.folders import MODELS, VOCABULARY, save_model
from tests.trainer.runs import Site, was_killed

TOKENS = torch.arange(24)[None] * 7 % 500
PLACES = torch.cat([torch.arange(10), torch.arange(14)])[None]
SLOT = Slot(TOKENS, TOKENS.roll(-1), PLACES, 0)


def trained_once(folder: Path, setting: str, dropout: float, adapted: bool) -> tuple[torch.Tensor, list[Any], int]:
    """Loss and gradients of one slot, and the bytes that the forward pass keeps for the backward pass."""
    model = build_model(ModelConfig(path=str(folder)), VOCABULARY, 0, 64, dropout, 0)
    if adapted:
        add_adapters(model, LoraConfig(r=4, dropout=0.3, use_dora=True), str(folder), 0)
    recompute_layers(model, setting)
    kept = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    torch.manual_seed(5)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = slot_backward(model, SLOT, 23, "fp32")
    return loss, [p.grad for p in model.parameters() if p.requires_grad], kept


@pytest.mark.parametrize("adapted", [False, True], ids=["all weights", "adapters"])
@pytest.mark.parametrize("kind", sorted(MODELS))
def test_loss_and_gradients_are_bit_equal_and_less_is_kept(tmp_path: Path, kind: str, adapted: bool) -> None:
    """In every family, with the dropout that it has and that of adapters: random draws are repeated."""
    folder = save_model(tmp_path, kind)
    dropout = 0.3 if MODELS[kind][0] in ("llama", "mistral", "gpt_neox") else 0.0
    plain, some, full = (trained_once(folder, setting, dropout, adapted) for setting in ("none", "every 2", "full"))
    for other in (some, full):
        assert torch.equal(other[0], plain[0])
        assert all(torch.equal(one, two) for one, two in zip(other[1], plain[1], strict=True))
    assert full[2] < some[2] < plain[2]


def test_a_run_may_change_it_between_attempts(site: Site, undisturbed: Callable[[int], Site]) -> None:
    """Sharded over two ranks: losses and states are those of the run that keeps everything."""
    site.changes["activation_checkpointing"] = "every 2"
    was_killed(site.run(2, "kill_in_slot", on_rank=1, nth=6 * 5), 1)
    site.changes["activation_checkpointing"] = "full"
    site.finish(2)
    assert site.resumed_from() == 4
    assert site.losses() == undisturbed(2).losses()
    assert site.digests() == undisturbed(2).digests()


def test_more_than_there_are_layers_is_refused(tmp_path: Path) -> None:
    """It would do nothing without a word."""
    model = build_model(ModelConfig(path=str(save_model(tmp_path, "llama"))), VOCABULARY, 0, 64, 0.0, 0)
    with pytest.raises(ConfigError, match=r"activation_checkpointing=every 3: the model has 2 layers.* use every 2"):
        recompute_layers(model, "every 3")
