"""Layers and widths of Llama-like models: counted exactly where the shape is known, assumed where only a size is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT_TARGETS = ("q_proj", "v_proj")
"""What gets adapters where a run does not say."""


@dataclass(frozen=True)
class Shape:
    """A decoder with grouped-query attention and a gated MLP."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    is_tied: bool = False

    @property
    def kv_hidden(self) -> int:
        """Width of keys and values."""
        return self.hidden // self.heads * self.kv_heads

    @property
    def layer_parameters(self) -> int:
        """Attention, MLP and the two norms."""
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.kv_hidden
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def root_parameters(self) -> int:
        """Outside the layers: embeddings, output layer, last norm."""
        return self.vocabulary * self.hidden * (1 if self.is_tied else 2) + self.hidden

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.root_parameters + self.layers * self.layer_parameters

    def lora_parameters(self, rank: int, targets: Sequence[str]) -> int:
        """Of adapters on these projections: rank x (in + out) each, in every layer. Raises KeyError."""
        sizes = {
            "q_proj": (self.hidden, self.hidden),
            "k_proj": (self.hidden, self.kv_hidden),
            "v_proj": (self.hidden, self.kv_hidden),
            "o_proj": (self.hidden, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }
        return self.layers * rank * sum(sum(sizes[target]) for target in targets)


KNOWN: tuple[Shape, ...] = (
    Shape(2048, 5632, 22, 32, 4, 32_000),
    Shape(4096, 11008, 32, 32, 32, 32_000),
    Shape(4096, 14336, 32, 32, 8, 128_256),
    Shape(5120, 13824, 40, 40, 40, 32_000),
    Shape(6656, 17920, 60, 52, 52, 32_000),
    Shape(8192, 28672, 80, 64, 8, 128_256),
    Shape(16384, 53248, 126, 128, 8, 128_256),
)
"""TinyLlama 1.1B, Llama 7B, 3 8B, 13B, 30B, 3 70B, 3.1 405B: their published configurations."""


def nearest(parameters: float) -> Shape:
    """Of the known ones, by the logarithm of the size."""
    return min(KNOWN, key=lambda shape: abs(math.log(shape.parameters / parameters)))
