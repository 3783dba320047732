"""Attention by document against a mask over the row: values, gradients, windows, callers without documents."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name
import transformers
from hypothesis import given
from hypothesis import strategies as st
from trainrun_api.train_config import ModelConfig
from trainrun_trainer.attention import DOCUMENTS, attend, by_documents, lengths_of
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.families import FAMILIES
from trainrun_trainer.model import attention_of, build_model, forward, refuse_if_documents_leak
from transformers import masking_utils

from tests.trainer.folders import MODELS, VOCABULARY, save_model

BY_DOCUMENT = [kind for kind, (family, *_) in MODELS.items() if FAMILIES[family].attention == DOCUMENTS]
TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}
"""fp32, sums in another order."""


class Module:
    """What an attention looks at of its layer."""

    num_key_value_groups = 2
    is_causal = True


def positions(*rows: list[int]) -> torch.Tensor:
    return torch.stack([torch.cat([torch.arange(length) for length in lengths]) for lengths in rows])


def masked(lengths: list[int], window: int | None) -> torch.Tensor:
    """What may be seen in one row, written down naively."""
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    back = torch.arange(len(document))[:, None] - torch.arange(len(document))[None, :]
    return (document[:, None] == document[None, :]) & (back >= 0) & (back < (window or len(document)))


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=3), st.sampled_from([None, 3])
)
def test_it_is_masked_attention(rows: list[list[int]], window: int | None) -> None:
    """Values and gradients, with fewer heads for keys than for queries, whatever the documents are."""
    tokens = max(map(sum, rows))
    rows = [lengths + [tokens - sum(lengths)] * (sum(lengths) < tokens) for lengths in rows]
    generator = torch.Generator().manual_seed(0)
    shapes = [(len(rows), heads, tokens, 8) for heads in (4, 2, 2)]
    ours = [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]
    theirs = [tensor.detach().clone().requires_grad_() for tensor in ours]
    got, _ = attend(Module(), *ours, None, scaling=0.3, document_lengths=rows, sliding_window=window)
    query, key, value = theirs[0], *(part.repeat_interleave(2, dim=1) for part in theirs[1:])
    is_seen = torch.stack([masked(lengths, window) for lengths in rows])[:, None]
    wanted = F.scaled_dot_product_attention(query, key, value, attn_mask=is_seen, scale=0.3).transpose(1, 2)
    torch.testing.assert_close(got, wanted, **TOLERANCE)
    weights = torch.randn(got.shape, generator=generator)
    (got * weights).sum().backward()
    (wanted * weights).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, **TOLERANCE)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_documents_do_not_see_each_other(dropout: float) -> None:
    """No gradient from one to another, whatever is dropped; a gradient of equal numbers is one number to torch."""
    query, key, value = (torch.randn(2, 4, 7, 8, requires_grad=True) for _ in range(3))
    got, _ = attend(Module(), query, key, value, None, dropout=dropout, document_lengths=[[3, 4], [7]])
    got[0, 3:].sum().backward()
    for part in (query, key, value):
        assert part.grad is not None and not part.grad[0, :, :3].any() and not part.grad[1].any()
    assert value.grad is not None and value.grad[0, :, 3:].any()
    alone = [part.detach()[:1, :, 3:].requires_grad_() for part in (query, key, value)]
    if not dropout:
        attend(Module(), *alone, None, document_lengths=[[4]])[0].sum().backward()
        for part, one in zip((query, key, value), alone, strict=True):
            assert part.grad is not None and torch.equal(part.grad[:1, :, 3:], one.grad)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_lengths_are_read_from_positions(lengths: list[int]) -> None:
    """Also where a row begins in the middle of a document."""
    row = positions(lengths)
    assert lengths_of(row) == [lengths]
    begun = row.clone()
    begun[0, : lengths[0]] += 5
    assert lengths_of(begun) == [lengths]


@pytest.mark.parametrize("kind", BY_DOCUMENT)
def test_a_model_learns_the_same(tmp_path: Path, kind: str) -> None:
    """Logits and gradients of a whole model on packed rows, against transformers' mask from positions alone."""
    model = load(tmp_path, kind)
    places = positions([5, 1, 10], [16])
    tokens = torch.arange(32).view(2, 16) * 7 % VOCABULARY
    ours = gradients(model, forward(model, tokens, places))
    model.set_attn_implementation("sdpa")
    theirs = gradients(model, model(input_ids=tokens, position_ids=places, use_cache=False).logits)
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], **TOLERANCE)


@pytest.mark.parametrize("kind", BY_DOCUMENT)
def test_a_document_is_what_it_is_alone(tmp_path: Path, kind: str) -> None:
    """Neighbours, and its place in the row, change nothing of its attention; of its logits at most the last bits."""
    model = load(tmp_path, kind).eval()
    lengths = [7, 1, 8]
    tokens = torch.arange(16)[None] + 30
    bounds = pairwise([0, *torch.tensor(lengths).cumsum(0).tolist()])
    with torch.no_grad():
        packed = forward(model, tokens, positions(lengths))
        alone = [forward(model, tokens[:, a:b], positions([b - a])) for a, b in bounds]
    torch.testing.assert_close(packed, torch.cat(alone, 1), rtol=0, atol=1e-6)


def test_who_names_no_documents_gets_sdpa(tmp_path: Path) -> None:
    """Generation with a cache, from prompts of different lengths, padded on the left."""
    model = load(tmp_path, "llama").eval()
    prompts = torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    chosen: dict[str, Any] = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    ours = model.generate(prompts, **chosen)
    model.set_attn_implementation("sdpa")
    assert torch.equal(ours, model.generate(prompts, **chosen))


def test_other_devices_mask_the_whole_row() -> None:
    """Of many small kernels a row would be slower there."""
    assert by_documents(torch.zeros(1, 4, dtype=torch.long), torch.device("meta")).keys() == {"position_ids"}


@pytest.mark.parametrize(
    ("device", "told"),
    [("cpu", {"position_ids", "attention_mask", "document_lengths"}), ("cuda", {"position_ids"})],
)
def test_the_check_takes_the_path_that_trains(tmp_path: Path, device: str, told: set[str]) -> None:
    """Of the device of the run, though the model still lies in the CPU's memory."""
    model = load(tmp_path, "llama")
    found: list[set[str]] = []
    model.register_forward_pre_hook(lambda model, rest, named: found.append(set(named)), with_kwargs=True)
    refuse_if_documents_leak(model, VOCABULARY, torch.device(device))
    assert found == 3 * [told | {"input_ids", "use_cache"}]


@pytest.mark.parametrize("kind", ["llama", "mistral with a window", "gpt_neox"])
def test_a_leak_of_other_devices_is_found(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that overlooks restarted positions would let documents leak there, and on no CPU."""
    model = load(tmp_path, kind)
    refuse_if_documents_leak(model, VOCABULARY, torch.device("cuda"))
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda position_ids: None)
    refuse_if_documents_leak(model, VOCABULARY, torch.device("cpu"))
    with pytest.raises(ConfigError, match="lets packed documents see each other on cuda"):
        refuse_if_documents_leak(model, VOCABULARY, torch.device("cuda"))


def test_the_fingerprint_names_the_path_that_is_taken(tmp_path: Path) -> None:
    """A checkpoint of another device was made by another one."""
    model = load(tmp_path, "llama")
    assert [attention_of(model, torch.device(name)) for name in ("cpu", "meta")] == [DOCUMENTS, "sdpa"]
    assert attention_of(load(tmp_path / "mpt", "mpt"), torch.device("cpu")) == "eager"


def test_the_name_stays_here(tmp_path: Path) -> None:
    """An exported model is loaded by programs that do not know it."""
    model = load(tmp_path, "llama")
    assert DOCUMENTS not in model.config.to_json_string()


def load(folder: Path, kind: str) -> Any:
    return build_model(ModelConfig(path=str(save_model(folder / "model", kind))), VOCABULARY, 0, 64, 0.0, 0)


def gradients(model: transformers.PreTrainedModel, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    (logits.logsumexp(-1) - logits[..., 3]).sum().backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {"logits": logits.detach(), **found}
