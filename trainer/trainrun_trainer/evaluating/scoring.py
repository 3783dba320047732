"""A model folder, loaded, and what it thinks of given tokens: the one primitive of perplexity and classification.

Each sequence is a row of its own, padded on the right, so no document sees another, whatever the model's family.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from trainrun_api.stage_config import Tasks
from transformers import AutoModelForCausalLM

from trainrun_trainer import device as devices
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.tokenizer import load_tokenizer

CONTEXT_NAMES = ("max_position_embeddings", "max_seq_len")
"""What most families call it in config.json, and MPT."""
USUAL_CONTEXT = 2048
"""Where a configuration does not say how long a row may be."""


@dataclass(frozen=True)
class Asked:
    """Tokens, and which of them the model is asked for: spans of places, none of which is the first."""

    ids: Sequence[int]
    spans: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Answered:
    """Sum of the natural logarithms of the probabilities of the asked tokens, and how many they are."""

    log_probability: float
    num_tokens: int


@dataclass(frozen=True)
class Loaded:
    """A model and its tokenizer, ready to be asked."""

    model: Any
    tokenizer: Any
    device: torch.device
    precision: str
    batch_tokens: int

    @classmethod
    def open(cls, folder: Path, tasks: Tasks) -> Loaded:
        """Load a Hugging Face folder. Raises ConfigError."""
        device = devices.open_device(tasks.accelerator, 0, tasks.threads)
        if not (folder / "config.json").exists():
            raise ConfigError(f"{folder}: it has no config.json; give the Hugging Face folder of a model")
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise ConfigError(f"{folder}: transformers cannot load it ({str(error).splitlines()[0]})") from error
        return cls(model.to(device).eval(), load_tokenizer(folder), device, tasks.precision, tasks.batch_tokens)

    @property
    def context(self) -> int:
        """Most tokens of a row."""
        told = (getattr(self.model.config, name, None) for name in CONTEXT_NAMES)
        return int(next((limit for limit in told if limit), USUAL_CONTEXT))

    def encode(self, text: str) -> list[int]:
        """Tokens of a text as it is, without any that mark its ends."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @torch.no_grad()
    def score(self, asked: Sequence[Asked]) -> list[Answered]:
        """One answer for each, in order."""
        answers: dict[int, Answered] = {}
        for batch in _batches(asked, self.batch_tokens):
            answers.update(zip(batch, self._score([asked[i] for i in batch]), strict=True))
        return [answers[i] for i in range(len(asked))]

    def _score(self, batch: Sequence[Asked]) -> Iterator[Answered]:
        longest = max(len(one.ids) for one in batch)
        ids = torch.zeros((len(batch), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        wanted = torch.zeros((len(batch), longest), dtype=torch.bool)
        for i, one in enumerate(batch):
            ids[i, : len(one.ids)] = torch.tensor(one.ids)
            mask[i, : len(one.ids)] = 1
            for start, end in one.spans:
                wanted[i, max(start, 1) : end] = True
        ids, mask, wanted = (t.to(self.device) for t in (ids, mask, wanted))
        with devices.compute_dtype(self.device, self.precision):
            logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        for i in range(len(batch)):
            places = wanted[i].nonzero()[:, 0]
            row = logits[i, places - 1].float()
            logs = row.gather(1, ids[i, places][:, None])[:, 0] - torch.logsumexp(row, 1)
            yield Answered(float(logs.sum(dtype=torch.float64)), len(places))


def _batches(asked: Sequence[Asked], batch_tokens: int) -> Iterator[list[int]]:
    """Places of sequences of like length that together, padded, are at most `batch_tokens`, or one."""
    batch: list[int] = []
    for i in sorted(range(len(asked)), key=lambda i: (-len(asked[i].ids), i)):
        if batch and (len(batch) + 1) * len(asked[batch[0]].ids) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
