"""Arithmetic of one step, in one process: the loss and its gradient, document isolation, agreement."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name
from trainrun_api.train_config import ModelConfig
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.loss import IGNORED, loss_sum
from trainrun_trainer.model import build_model, forward, refuse_if_documents_leak
from trainrun_trainer.order import mix
from trainrun_trainer.plan import parse_interval
from trainrun_trainer.ranks import Ranks
from trainrun_trainer.state import TrainState
from trainrun_trainer.step import agree, clip
from trainrun_trainer.train import is_save_time

CPU = torch.device("cpu")
ALONE = Ranks(0, 0, 1, CPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("rows", "vocabulary"), [(3, 7), (50, 40_000)], ids=["one chunk", "many chunks"])
def test_the_loss_is_cross_entropy(dtype: torch.dtype, rows: int, vocabulary: int) -> None:
    """Value and gradient of torch's own, computed in fp32; ignored targets have no gradient."""
    generator = torch.Generator().manual_seed(1)
    values = (torch.randn(rows, vocabulary, generator=generator) * 3).to(dtype)
    targets = torch.randint(0, vocabulary, (rows,), generator=generator)
    targets[1] = IGNORED
    theirs = values.clone().requires_grad_()
    expected = F.cross_entropy(theirs.float(), targets, ignore_index=IGNORED, reduction="sum")
    (expected / 5).backward()
    ours = values.clone().requires_grad_()
    found = loss_sum(ours * 1.0, targets)
    (found / 5).backward()
    assert theirs.grad is not None and ours.grad is not None
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1.6e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)
    assert not ours.grad[1].any()


def tiny_model() -> Any:
    """A Llama of two layers."""
    architecture = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }  # fmt: skip
    return build_model(ModelConfig.model_validate({"architecture": architecture}), 300, 0, 64, 0.0, 5)


def test_packed_documents_do_not_see_each_other() -> None:
    """The real model class passes; one that ignores positions is refused."""
    model = tiny_model()
    refuse_if_documents_leak(model, 300, CPU)

    def without_positions(input_ids: torch.Tensor, use_cache: bool, **isolated: Any) -> Any:
        assert "position_ids" in isolated
        return model(input_ids=input_ids, use_cache=use_cache)

    leaky = torch.nn.Module()
    leaky.config = model.config  # type: ignore[assignment]
    leaky.forward = without_positions  # type: ignore[method-assign,assignment]
    with pytest.raises(ConfigError, match="see each other"):
        refuse_if_documents_leak(leaky, 300, CPU)


def test_the_same_seed_gives_the_same_weights() -> None:
    """A random start is a function of the seed, whatever was drawn before."""
    first = tiny_model().state_dict()
    torch.rand(5)
    assert all(torch.equal(a, b) for a, b in zip(first.values(), tiny_model().state_dict().values(), strict=True))


def test_restarted_positions_isolate_within_the_models_own_attention() -> None:
    """A token's logits do not change when the document before it does."""
    model = tiny_model().eval()
    places = torch.tensor([[0, 1, 2, 0, 1, 2]])
    with torch.no_grad():
        one = forward(model, torch.tensor([[5, 6, 7, 8, 9, 10]]), places)
        other = forward(model, torch.tensor([[50, 60, 70, 8, 9, 10]]), places)
    torch.testing.assert_close(one[:, 3:], other[:, 3:], rtol=0, atol=1e-5)
    assert not torch.allclose(one[:, :3], other[:, :3])


@pytest.mark.parametrize(
    ("loss", "gradient", "is_finite"),
    [(1.0, 2.0, True), (math.nan, 2.0, False), (math.inf, 2.0, False), (1.0, math.nan, False), (1.0, math.inf, False)],
)
def test_finiteness_is_part_of_the_agreement(loss: float, gradient: float, is_finite: bool) -> None:
    """Loss and gradient norm both count."""
    shard = type("Shard", (), {"is_counted_here": lambda self: True})()
    agreed = agree(ALONE, [shard], [torch.tensor([gradient, 0.0])], torch.tensor(loss).double(), 7, False, None)
    assert agreed.is_finite is is_finite


@pytest.mark.parametrize("rows_sum", [0, 1, 0xFFFF, 0x1_0000, 2**63 + 12345, 2**64 - 1])
@pytest.mark.parametrize("stop_code", [None, 10, 11])
def test_flags_and_row_sums_survive_the_agreement(rows_sum: int, stop_code: int | None) -> None:
    """64 bits travel exactly through float64."""
    agreed = agree(ALONE, [], [], torch.tensor(1.0).double(), rows_sum, True, stop_code)
    assert (agreed.rows_sum, agreed.save_now, agreed.stop_code) == (rows_sum, True, stop_code)


def test_clip_scales_only_what_is_too_long() -> None:
    """The agreed norm decides."""
    gradients = [torch.tensor([3.0]), torch.tensor([4.0])]
    clip(gradients, 5.0, 10.0)
    assert [g.item() for g in gradients] == [3.0, 4.0]
    clip(gradients, 5.0, 1.0)
    assert [g.item() for g in gradients] == pytest.approx([0.6, 0.8])


def test_seeds_of_slots_differ() -> None:
    """Neighbouring (seed, step, slot) do not collide."""
    seeds = {mix(seed, 3, step, slot) for seed in range(3) for step in range(30) for slot in range(30)}
    assert len(seeds) == 3 * 30 * 30


def test_the_rows_digest_depends_on_the_order_of_steps() -> None:
    """A chain: the same rows in other steps make another digest."""
    start = TrainState()
    assert start.after_step(8, 1).after_step(8, 2) != start.after_step(8, 2).after_step(8, 1)
    assert TrainState.from_counters(start.after_step(8, 1).counters()) == start.after_step(8, 1)


@pytest.mark.parametrize(
    ("rank", "interval", "age_seconds", "is_due"),
    [(0, "10m", 601, True), (0, "10m", 599, False), (1, "10m", 601, False), (0, 5, 601, False), (0, "auto", 301, True)],
)
def test_rank_0_asks_for_a_save_by_time(rank: int, interval: int | str, age_seconds: int, is_due: bool) -> None:
    """An interval after the last save began, whether it failed or not."""
    tried = SimpleNamespace(tried_monotonic=time.monotonic() - age_seconds)
    plan = SimpleNamespace(save=parse_interval(interval))
    run: Any = SimpleNamespace(ranks=Ranks(rank, rank, 2, CPU), plan=plan, checkpoints=tried)
    assert is_save_time(run) is is_due
