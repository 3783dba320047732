"""Attention document by document: on a CPU it costs the squares of the documents' lengths, not the square of the row's.

A mask hides what a token must not see, but a CPU computes it first: of instruction rows that is most of the work. Here
each document of a packed row is a causal attention of its own, so that its result does not depend on its neighbours at
all, not even in the last bit. transformers calls it by the name `documents`; for callers that name no documents
(generation, evaluation with padding) it is transformers' own `sdpa`, masks included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

DOCUMENTS = "documents"
Lengths = list[list[int]]
"""Of the documents of each row; they sum up to the row's tokens."""


def register() -> None:
    """Make the name known to transformers, before a model asks for it; a second time changes nothing."""
    AttentionInterface.register(DOCUMENTS, attend)
    AttentionMaskInterface.register(DOCUMENTS, sdpa_mask)


def by_documents(position_ids: torch.Tensor, device: torch.device) -> dict[str, Any]:
    """What a model that trains on `device` is given for rows [rows, tokens] whose positions restart with each document.

    The mask is read by nobody: without one, transformers would build its own. Other devices take its mask, since many
    small kernels cost them more than a masked large one.
    """
    if path_on(device) != DOCUMENTS:
        return {"position_ids": position_ids}
    mask = torch.zeros(1, 1, 1, 1)
    return {"position_ids": position_ids, "attention_mask": mask, "document_lengths": lengths_of(position_ids)}


def path_on(device: torch.device) -> str:
    """The path that a model of this attention takes there."""
    return DOCUMENTS if device.type == "cpu" else "sdpa"


def lengths_of(position_ids: torch.Tensor) -> Lengths:
    """Lengths of the documents of each row; what stands before the first start is one as well."""
    found = []
    for row in position_ids.tolist():
        starts = [0, *(place for place, position in enumerate(row) if position == 0 and place), len(row)]
        found.append([end - start for start, end in pairwise(starts)])
    return found


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    document_lengths: Lengths | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Queries [rows, heads, tokens, size], keys and values of as many or fewer heads -> [rows, tokens, heads, size]."""
    if document_lengths is None:
        answer: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling,
            sliding_window=sliding_window, **others,
        )  # fmt: skip
        return answer
    groups = query.shape[1] // key.shape[1]
    parts = (query, repeat_kv(key, groups), repeat_kv(value, groups))
    if all(len(lengths) == 1 for lengths in document_lengths):
        return _causal(*parts, dropout, scaling, sliding_window).transpose(1, 2), None
    if dropout:
        return _dropped(parts, document_lengths, dropout, scaling, sliding_window).transpose(1, 2), None
    by_document = _ByDocument.apply(*map(_as_autocast, parts), document_lengths, scaling, sliding_window)  # type: ignore[no-untyped-call]
    return by_document.transpose(1, 2), None


def _as_autocast(part: torch.Tensor) -> torch.Tensor:
    """What torch's own function does with its inputs."""
    device = part.device.type
    return part.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else part


class _ByDocument(torch.autograd.Function):
    """torch's kernel on each document, whose results go straight to their places: autograd sees one operation a layer,
    and nothing is put together again, forward or backward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        lengths: Lengths,
        scaling: float | None,
        window: int | None,
    ) -> torch.Tensor:
        rows, heads, tokens, size = query.shape
        whole = query.new_empty(rows, tokens, heads, size).transpose(1, 2)  # as the kernel's, and as it is used
        log_sums = []
        for at in _places(lengths):
            parts = (query[at], key[at], value[at])
            seen = _seen(parts[0], window)
            whole[at], log_sum = _KERNEL(*parts, 0.0, seen is None, attn_mask=seen, scale=scaling)
            log_sums.append(log_sum)
        ctx.save_for_backward(query, key, value, whole, *log_sums)
        ctx.facts = lengths, scaling, window
        return whole

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, whole, *log_sums = ctx.saved_tensors
        inputs, (lengths, scaling, window) = (query, key, value), ctx.facts
        gradient = gradient if gradient.stride(-1) == 1 else gradient.contiguous()  # the kernel reads nothing else
        gradients = [torch.empty_like(part) for part in inputs]
        for at, log_sum in zip(_places(lengths), log_sums, strict=True):
            parts = [part[at] for part in inputs]
            seen = _seen(parts[0], window)
            found = _KERNEL_BACKWARD(
                gradient[at], *parts, whole[at], log_sum, 0.0, seen is None, attn_mask=seen, scale=scaling
            )
            for of_part, piece in zip(gradients, found, strict=True):
                of_part[at] = piece
        return *gradients, None, None, None


_KERNEL = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_KERNEL_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
"""What torch's function takes on a CPU where nothing is dropped."""


def _places(lengths: Lengths) -> Iterator[tuple[slice, slice, slice]]:
    """Of each document in [rows, heads, tokens, size]; one row stays a row, since the kernel wants four dimensions."""
    for row, of_row in enumerate(lengths):
        for end, length in zip(accumulate(of_row), of_row, strict=True):
            yield slice(row, row + 1), slice(None), slice(end - length, end)


def _dropped(
    parts: Sequence[torch.Tensor], lengths: Lengths, dropout: float, scaling: float | None, window: int | None
) -> torch.Tensor:
    """With dropout torch has no such kernel."""
    rows = []
    # split and unbind, not slices: the gradient of a slice is a whole row of zeros for each document
    for of_row, *row in zip(lengths, *(part.unsqueeze(1).unbind(0) for part in parts), strict=True):
        documents = zip(*(part.split(of_row, dim=2) for part in row), strict=True)
        rows.append(torch.cat([_causal(q, k, v, dropout, scaling, window) for q, k, v in documents], dim=2))
    return torch.cat(rows)


def _causal(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """One document, or many of one length: [rows, heads, tokens, size], since for less torch has no fast kernel."""
    seen = _seen(query, window)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=seen, dropout_p=dropout, scale=scaling, is_causal=seen is None
    )


def _seen(query: torch.Tensor, window: int | None) -> torch.Tensor | None:
    """0 for what a token of [rows, heads, tokens, size] sees, else minus infinity; None if that is all before it."""
    tokens = query.shape[-2]
    if window is None or tokens <= window:
        return None
    back = torch.arange(tokens, device=query.device)[:, None] - torch.arange(tokens, device=query.device)
    return torch.zeros_like(back, dtype=query.dtype).masked_fill_((back < 0) | (back >= window), -torch.inf)
