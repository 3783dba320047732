"""TrainConfig: what the trainer reads and `spec.config` embeds, word for word.

Field names are snake_case, as training code writes them; the rest of the manifest is Kubernetes' camelCase.
Cross-field checks live in `rules/`, so that the CRD and `trainrun validate` say the same sentence.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from trainrun_api.base import Strict
from trainrun_api.data_config import DataConfig


class Architecture(Strict):
    """A model with random weights; the words are transformers' own."""

    hidden_size: int = Field(256, ge=8, le=65536, description="Width of the residual stream.")
    intermediate_size: int = Field(688, ge=8, le=262144, description="Width of the MLP.")
    num_hidden_layers: int = Field(4, ge=1, le=512, description="Number of decoder layers.")
    num_attention_heads: int = Field(4, ge=1, le=1024, description="Query heads.")
    num_key_value_heads: int = Field(4, ge=1, le=1024, description="Key and value heads.")
    rope_theta: float = Field(10000.0, gt=0, description="Base of the rotary embedding.")
    rms_norm_eps: float = Field(1e-5, gt=0, description="Epsilon of the norms.")
    tie_word_embeddings: bool = Field(True, description="Share input and output embeddings.")


class ModelConfig(Strict):
    """Which model is trained: random weights of an architecture, or a local Hugging Face folder."""

    family: Literal["llama"] = Field(
        "llama", description="Family of a random start; a folder's config.json says its own."
    )
    architecture: Architecture | None = Field(
        None, description="Random start with these sizes; exactly one of architecture and path."
    )
    path: str | None = Field(
        None,
        min_length=1,
        max_length=1024,
        description="Local Hugging Face folder (config.json, safetensors): Llama, Mistral, Falcon, MPT or GPT-NeoX; "
        "every key must match.",
    )


class OptimizerConfig(Strict):
    """AdamW."""

    lr: float = Field(3e-4, gt=0, description="Peak learning rate.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the first moment.")
    beta2: float = Field(0.95, ge=0, lt=1, description="Decay of the second moment.")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator.")
    weight_decay: float = Field(0.1, ge=0, description="Decoupled decay of matrices (not of norms and biases).")
    clip_norm: float = Field(1.0, gt=0, description="Gradient norm above which gradients are scaled down.")


class ScheduleConfig(Strict):
    """Linear warm-up, then cosine down to a share of the peak."""

    warmup_steps: int = Field(0, ge=0, le=100_000_000, description="Steps of linear warm-up.")
    min_lr_ratio: float = Field(0.1, ge=0, le=1, description="Final learning rate as a share of the peak.")


class ParallelConfig(Strict):
    """Sizes of the device mesh; their product is the world size."""

    dp_replicate: int = Field(1, ge=1, le=65536, description="Replicas of the sharded model.")
    dp_shard: int | None = Field(
        None, ge=1, le=65536, description="FSDP2 sharding degree; null: all ranks that the other axes leave."
    )
    tp: int = Field(1, ge=1, le=64, description="Tensor parallel degree; above 1 comes with a later version.")


class LoraConfig(Strict):
    """Low-rank adapters on a frozen model: checkpoints and export hold the adapters alone (docs/methods.md)."""

    r: int = Field(16, ge=1, le=1024, description="Rank.")
    alpha: float = Field(16.0, gt=0, description="Scale: the adapter's product counts alpha / r times.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout ahead of the adapters, seeded by (seed, step, slot).")
    target_modules: list[Annotated[str, StringConstraints(min_length=1, max_length=128)]] = Field(
        default_factory=list,
        max_length=32,
        description="Linear modules of each layer that get adapters; empty: the family's queries and values "
        "(q_proj and v_proj of a Llama).",
    )
    use_dora: bool = Field(False, description="DoRA: magnitudes of the adapted weights are trained apart.")


class EvalConfig(Strict):
    """Held-out perplexity per source, token-weighted over ranks, document-masked."""

    every_steps: int = Field(
        100, ge=1, le=100_000_000, description="Evaluate after each multiple, at step 0 and at the end."
    )
    max_rows_per_source: int = Field(64, ge=1, le=1_000_000, description="Held-out rows read per source.")


class SiftingConfig(Strict):
    """Loss-based row selection. Comes with a later version: refused today."""

    beta: float = Field(0.5, gt=0, description="Exponent on the loss percentile.")


class ExportConfig(Strict):
    """The last act of a successful run: a folder that plain transformers loads."""

    max_shard_bytes: int = Field(
        5_000_000_000, ge=1_000_000, le=100_000_000_000, description="Largest safetensors file."
    )


class TrainConfig(Strict):
    """One training stage, complete. Only total_steps, cadences and retention may change on resume."""

    model: ModelConfig = Field(description="Which model. Immutable for the life of a run.")
    data: DataConfig = Field(description="Which text. Immutable for the life of a run.")
    total_steps: int = Field(ge=1, le=100_000_000, description="Optimizer steps of the whole run.")
    global_batch_rows: int = Field(ge=1, le=10_000_000, description="Rows per optimizer step, over all ranks.")
    micro_batch_rows: int = Field(
        1, ge=1, le=65536, description="Rows per forward pass on one rank; accumulation is derived."
    )
    seed: int = Field(0, ge=0, le=2**53, description="Seeds weights and data order.")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16: compute in bf16, weights, gradients and reduction in fp32."
    )
    threads_per_worker: int = Field(
        1, ge=1, le=256, description="CPU threads of a worker; part of the numerics fingerprint."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Attention dropout, seeded by (seed, step, slot).")
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="AdamW settings.")
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig, description="Learning rate over steps.")
    parallel: ParallelConfig = Field(default_factory=ParallelConfig, description="Device mesh.")
    activation_checkpointing: str = Field(
        "none",
        max_length=16,
        pattern=r"^(none|full|every [1-9][0-9]{0,2})$",
        description="Layers whose activations are computed again in the backward pass instead of kept: none, full, or "
        "every 2, every 3 ... for each second, third ... layer. Changes memory and time, not one bit of the result.",
    )
    lora: LoraConfig | None = Field(
        None, description="Adapters on the frozen model of model.path; absent: all weights are trained."
    )
    eval: EvalConfig | None = Field(None, description="Held-out evaluation; null: none.")
    sifting: SiftingConfig | None = Field(None, description="Row selection; comes with a later version.")
    export: ExportConfig = Field(default_factory=ExportConfig, description="Final export.")
