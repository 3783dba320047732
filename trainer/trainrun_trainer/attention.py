"""Attention document by document: on a CPU it costs the squares of the documents' lengths, not the square of the row's.

A mask hides what a token must not see, but a CPU computes it first: of instruction rows that is most of the work. Here
each document of a packed row is a causal attention of its own, so that its result does not depend on its neighbours at
all, not even in the last bit. transformers calls it by the name `documents`; for callers that name no documents
(generation, evaluation with padding) it is transformers' own `sdpa`, masks included.
"""

from __future__ import annotations

from itertools import pairwise
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


def by_documents(position_ids: torch.Tensor) -> dict[str, Any]:
    """What a model is given for rows [rows, tokens] whose positions restart with each document.

    The mask is read by nobody: without one, transformers would build its own. Other devices take its mask, since many
    small kernels cost them more than a masked large one.
    """
    if path_on(position_ids.device) != DOCUMENTS:
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
    rows = []
    # split and unbind, not slices: the gradient of a slice is a whole row of zeros for each document
    for lengths, *row in zip(document_lengths, *(part.unsqueeze(1).unbind(0) for part in parts), strict=True):
        documents = zip(*(part.split(lengths, dim=2) for part in row), strict=True)
        rows.append(torch.cat([_causal(q, k, v, dropout, scaling, sliding_window) for q, k, v in documents], dim=2))
    return torch.cat(rows).transpose(1, 2), None


def _causal(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """One document, or many of one length: [rows, heads, tokens, size], since for less torch has no fast kernel."""
    tokens = query.shape[-2]
    if window is None or tokens <= window:
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scaling, is_causal=True)
    places = torch.arange(tokens, device=query.device)
    back = places[:, None] - places[None, :]
    is_seen = (back >= 0) & (back < window)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=is_seen, dropout_p=dropout, scale=scaling)
