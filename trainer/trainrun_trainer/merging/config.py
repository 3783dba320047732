"""How models are merged, as a user writes it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from trainrun_api.base import Strict

from trainrun_trainer.errors import ConfigError

Method = Literal["linear", "slerp", "ties", "dare", "dare-ties"]
MIDDLE, WHOLE = 0.5, 1.0


class MergeConfig(Strict):
    """One merge; the first model is the base, and the only one whose tokenizer and settings are kept."""

    method: Method = Field(
        description="linear: weighted mean; slerp: along the arc; ties, dare: differences to the base."
    )
    t: float | None = Field(
        None, ge=0, le=1,
        description="0: the first model. linear and slerp of two models: 1 is the second, null 0.5. ties and dare: the "
        "share of the merged difference that is added, null 1.",
    )  # fmt: skip
    weights: list[Annotated[float, Field(ge=0)]] | None = Field(
        None, max_length=64, description="linear: one per model, instead of t; ties and dare: one per further model."
    )
    density: float = Field(0.5, gt=0, le=1, description="ties: the share of each difference that is kept, the largest.")
    drop: float = Field(0.5, ge=0, lt=1, description="dare: probability that an element of a difference is dropped.")
    seed: int = Field(0, ge=0, le=2**53, description="dare: which elements are dropped.")
    max_shard_bytes: int = Field(5_000_000_000, ge=1_000, description="Largest safetensors file.")

    def weights_of(self, num_models: int) -> list[float]:
        """Weights for so many models; ConfigError if the configuration does not fit their number."""
        is_mean = self.method in ("linear", "slerp")
        if num_models < 2 or (self.method == "slerp" and num_models != 2):
            wanted = "exactly 2 models" if self.method == "slerp" else "at least 2 models"
            raise ConfigError(f"method={self.method} of {num_models} model(s): expected {wanted}, the base first")
        if self.weights is None:
            if not is_mean:
                return [1.0] * (num_models - 1)
            if num_models == 2:
                share = MIDDLE if self.t is None else self.t
                return [1 - share, share]
            if self.t is not None:
                raise ConfigError(f"t={self.t} of {num_models} models: t is between two; give weights, one per model")
            return [1.0] * num_models
        if self.method == "slerp" or (is_mean and self.t is not None):
            raise ConfigError(
                f"weights={self.weights} with method={self.method}: give either t or weights, slerp only t"
            )
        wanted_count = num_models if is_mean else num_models - 1
        if len(self.weights) != wanted_count or not sum(self.weights):
            raise ConfigError(
                f"weights={self.weights} of {num_models} models: method={self.method} needs {wanted_count}, not all 0"
            )
        return self.weights
