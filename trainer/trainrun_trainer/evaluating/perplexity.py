"""Perplexity of named sets: every token counts once, and is predicted from its own document only."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

from trainrun_api.contract import CheckpointLayout
from trainrun_api.stage_config import TextSet

from trainrun_trainer.errors import ConfigError
from trainrun_trainer.evaluating.records import records, text_of
from trainrun_trainer.evaluating.scoring import Asked, Loaded
from trainrun_trainer.packing import HELD_OUT, PackedRows
from trainrun_trainer.prepared import DataManifest
from trainrun_trainer.rows import open_rows
from trainrun_trainer.tokenizer import load_tokenizer
from trainrun_trainer.vocabulary import Vocabulary, differing, told

LARGEST_LOSS = 700.0
"""The exponential of more is no number."""


def perplexity(loaded: Loaded, task: TextSet, field: str) -> dict[str, Any]:
    """{loss, perplexity, tokens, pieces}; loss is the mean over tokens, in nats."""
    asked = _rows(loaded, task, field) if task.path is None else _documents(loaded, task, task.path, field)
    answers = loaded.score(asked)
    tokens = sum(answer.num_tokens for answer in answers)
    loss = -sum(answer.log_probability for answer in answers) / max(tokens, 1)
    return {"loss": loss, "perplexity": math.exp(min(loss, LARGEST_LOSS)), "tokens": tokens, "pieces": len(asked)}


def _documents(loaded: Loaded, task: TextSet, path: str, field: str) -> list[Asked]:
    """Documents with their end of text, in pieces as long as the model's context."""
    asked = []
    for record in records(path, field, [task.text_field], [], task.max_documents):
        ids = [*loaded.encode(text_of(record, task.text_field, field)), loaded.tokenizer.eos_token_id]
        for start in range(0, len(ids), loaded.context):
            piece = ids[start : start + loaded.context]
            asked.append(Asked(piece, [(1, len(piece))]))
    return asked


def _rows(loaded: Loaded, task: TextSet, field: str) -> list[Asked]:
    """Held-out rows as training evaluates them, each document's piece by itself."""
    folder = Path(task.prepared or "")
    try:
        facts = json.loads((folder / CheckpointLayout.MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{field}.prepared={folder}: its manifest cannot be read ({error})") from error
    data = DataManifest(folder.name, folder, facts)
    if task.source not in data.source_names:
        raise ConfigError(f"{field}.source={task.source!r}: the data has {', '.join(data.source_names)}")
    rows_of, models = (Vocabulary(of.get_vocab()) for of in (load_tokenizer(folder / "tokenizer"), loaded.tokenizer))
    differ = differing(rows_of, models)
    if differ:
        raise ConfigError(
            f"{field}.prepared={folder}: its tokenizer is not the model's ({told(differ, rows_of, models)}); give the "
            "text itself by path"
        )
    rows = open_rows(data, task.source, HELD_OUT)
    return [one for row in range(min(rows.num_rows, task.max_documents)) for one in _pieces(rows, row)]


def _pieces(rows: PackedRows, row: int) -> list[Asked]:
    tokens, learned = rows.tokens(row).tolist(), rows.learned(row)
    starts = [*rows.segments(row)[:, 1].tolist(), len(tokens)]
    pieces = []
    for start, end in pairwise(starts):
        spans = [(1, end - start)]
        if learned is not None:
            inside = ((max(a, start) - start, min(b, end) - start) for a, b in learned.tolist())
            spans = [(a, b) for a, b in inside if a < b]
        if spans:
            pieces.append(Asked(tokens[start:end], spans))
    return pieces
