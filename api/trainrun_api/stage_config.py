"""Configurations of the kinds evaluate, consolidate, merge and report, and of the commands that do the same by hand.

Paths are local: relative ones start at the working directory, and in a stage `stage:NAME` is an output of an earlier
one (docs/stages.md). What does not fit together is refused here, so that no worker has to start for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from trainrun_api.base import Strict
from trainrun_api.data_config import InstructionFormat

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?$")]
Place = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Method = Literal["linear", "slerp", "ties", "dare", "dare-ties"]
MIDDLE = 0.5


class TextSet(Strict):
    """A named set of text for perplexity: files, or the held-out rows of a run's prepared data."""

    path: Place | None = Field(None, description="File or folder of documents; exactly one of path and prepared.")
    text_field: str = Field("text", min_length=1, max_length=128, description="Field or column that holds the text.")
    prepared: Place | None = Field(
        None, description="<checkpoint.path>/data/<hash> of a run with the same tokenizer; in a stage: stage:NAME/data."
    )
    source: str = Field("", description="Which source of the prepared data.")
    max_documents: int = Field(1000, ge=1, le=10_000_000, description="Documents (or rows) read, the first ones.")
    max_ratio: float | None = Field(
        None, gt=0, description="Perplexity above so many times the baseline's is told as a loss of general ability."
    )

    @model_validator(mode="after")
    def _has_one_place(self) -> Self:
        if (self.path is None) == (self.prepared is None):
            raise ValueError("exactly one of path and prepared is needed")
        return self


class Questions(Strict):
    """Fixed prompts with references: answers are generated and compared."""

    path: Place = Field(description="File or folder of instruction, context (may be missing) and response.")
    fields: InstructionFormat = Field(default_factory=InstructionFormat, description="Names of the columns.")
    max_questions: int = Field(100, ge=1, le=1_000_000, description="Questions asked, the first ones.")
    max_new_tokens: int = Field(64, ge=1, le=100_000, description="Longest answer.")
    temperature: float = Field(0.0, ge=0, le=10, description="0: always the likeliest token.")
    seed: int = Field(
        0, ge=0, le=2**53, description="Of every answer, with its place: answers do not depend on others."
    )
    outputs: dict[Name, Place] = Field(
        default_factory=dict, max_length=16,
        description="Answers of other systems to the same questions, by name: .jsonl files with a field `output`, one "
        "line per question; they become columns of the report.",
    )  # fmt: skip


class Labels(Strict):
    """Labelled text: the label whose words are likeliest after the prompt is the answer; nothing is parsed."""

    path: Place = Field(description="File or folder of text and label.")
    text_field: str = Field("text", min_length=1, max_length=128, description="Column of the text.")
    label_field: str = Field("label", min_length=1, max_length=128, description="Column of the label.")
    labels: dict[str, str] = Field(
        min_length=2, max_length=64, description="Label to the words that stand for it, such as spam: ' spam'."
    )
    prompt: str = Field("{text}\n\nLabel:", description="What comes before the label's words; {text} is the text.")
    max_text_tokens: int = Field(256, ge=1, le=1_000_000, description="Longer texts are cut here, and counted.")
    max_texts: int = Field(1000, ge=1, le=10_000_000, description="Texts read, the first ones.")
    positive: str | None = Field(None, description="The label that precision, recall and F1 of the report are of.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if "{text}" not in self.prompt:
            raise ValueError(f"prompt={self.prompt!r} has no {{text}}, where the text belongs")
        if self.positive is not None and self.positive not in self.labels:
            raise ValueError(f"positive={self.positive!r} is none of labels: {', '.join(self.labels)}")
        return self


class LmEval(Strict):
    """lm-evaluation-harness in an environment of its own, on task files of one's own; nothing is downloaded."""

    python: Place = Field(description="Interpreter of the environment that has lm_eval.")
    tasks: list[Name] = Field(min_length=1, max_length=64, description="Names of tasks.")
    include_path: Place = Field(description="Folder of the task files.")
    limit: int | None = Field(None, ge=1, description="Examples per task; null: all.")
    timeout_seconds: int = Field(
        21_600, ge=1, le=604_800, description="Of one model; a suite that hangs must not hold its machine for ever."
    )


class Tasks(Strict):
    """Everything that one evaluation measures, each set by name."""

    perplexity: dict[Name, TextSet] = Field(default_factory=dict, max_length=64, description="Sets of text.")
    questions: dict[Name, Questions] = Field(default_factory=dict, max_length=64, description="Sets of questions.")
    labels: dict[Name, Labels] = Field(default_factory=dict, max_length=64, description="Sets of labelled text.")
    lm_eval: LmEval | None = Field(None, description="Standard suites.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: compute in bf16.")
    accelerator: Literal["cpu", "cuda"] = Field("cpu", description="Where the models run.")
    threads: int = Field(1, ge=1, le=256, description="CPU threads.")
    batch_tokens: int = Field(4096, ge=1, le=10_000_000, description="Tokens of a forward pass, padding included.")

    @property
    def num_sets(self) -> int:
        """Sets that each model is measured on."""
        return len(self.perplexity) + len(self.questions) + len(self.labels) + (self.lm_eval is not None)


class EvaluateStage(Tasks):
    """Kind evaluate: a model beside its baseline, or every kept checkpoint of a stage."""

    model: Place | None = Field(None, description="Model folder; exactly one of model and checkpoints.")
    checkpoints: Place | None = Field(
        None, description="Store whose kept checkpoints are all evaluated, as stage:NAME/checkpoints."
    )
    baseline: Place | None = Field(
        None,
        description="Folder of the unmodified model; may be left out beside checkpoints: what their run started from.",
    )

    @model_validator(mode="after")
    def _has_something_to_compare(self) -> Self:
        if (self.model is None) == (self.checkpoints is None):
            raise ValueError("exactly one of model and checkpoints is needed")
        if self.model is not None and self.baseline is None:
            raise ValueError("baseline is needed beside model; name the folder of the unmodified model")
        if not self.num_sets:
            raise ValueError("nothing is named that is to be measured; give perplexity, questions, labels or lm_eval")
        if self.checkpoints is not None and not self.perplexity:
            raise ValueError("checkpoints are compared by perplexity; give sets under perplexity")
        return self


class ConsolidateConfig(Strict):
    """Which checkpoint, and into how large files."""

    step: int | None = Field(None, ge=0, description="Of this step; null: the newest.")
    max_shard_bytes: int = Field(5_000_000_000, ge=1_000, description="Largest safetensors file.")


class ConsolidateStage(ConsolidateConfig):
    """Kind consolidate: a checkpoint as a model folder."""

    checkpoint: Place = Field(description="Store of the checkpoint, as stage:NAME/checkpoints.")


class MergeSettings(Strict):
    """All of a merge but its method."""

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


METHODS = "linear: weighted mean; slerp: along the arc; ties, dare: differences to the base."


class MergeConfig(MergeSettings):
    """One merge; the first model is the base, and the only one whose tokenizer and settings are kept."""

    method: Method = Field(description=METHODS)

    def weights_of(self, num_models: int) -> list[float]:
        """Weights for so many models; ValueError if the configuration does not fit their number."""
        is_mean = self.method in ("linear", "slerp")
        if num_models < 2 or (self.method == "slerp" and num_models != 2):
            wanted = "exactly 2 models" if self.method == "slerp" else "at least 2 models"
            raise ValueError(f"method={self.method} of {num_models} model(s): expected {wanted}, the base first")
        if self.weights is None:
            if not is_mean:
                return [1.0] * (num_models - 1)
            if num_models == 2:
                share = MIDDLE if self.t is None else self.t
                return [1 - share, share]
            if self.t is not None:
                raise ValueError(f"t={self.t} of {num_models} models: t is between two; give weights, one per model")
            return [1.0] * num_models
        if self.method == "slerp" or (is_mean and self.t is not None):
            raise ValueError(
                f"weights={self.weights} with method={self.method}: give either t or weights, slerp only t"
            )
        wanted_count = num_models if is_mean else num_models - 1
        if len(self.weights) != wanted_count or not sum(self.weights):
            raise ValueError(
                f"weights={self.weights} of {num_models} models: method={self.method} needs {wanted_count}, not all 0"
            )
        return self.weights


class MergeSweep(Strict):
    """Further merges over t, each evaluated like the base: how much of a model may be mixed in."""

    over: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        min_length=1, max_length=64, description="Values of t, each once."
    )
    tasks: Tasks = Field(description="What each merge is measured on; sets under perplexity are needed.")

    @model_validator(mode="after")
    def _makes_a_curve(self) -> Self:
        if len(set(self.over)) != len(self.over):
            raise ValueError(f"over={self.over}: expected values of t from 0 to 1, each once")
        if not self.tasks.perplexity:
            raise ValueError("merges are compared by perplexity; give sets under tasks.perplexity")
        return self


class MergeStage(MergeSettings):
    """Kind merge: several models as one, or adapters and the model that they were trained on."""

    method: Method | None = Field(None, description=f"{METHODS} Exactly one of method and adapter.")
    models: list[Place] = Field(min_length=1, max_length=64, description="Model folders, the base first.")
    adapter: Place | None = Field(
        None, description="Adapters to be merged into the only model: stage:NAME of a stage that trained with lora."
    )
    sweep: MergeSweep | None = Field(None, description="A table over t beside the merge.")

    @property
    def merge(self) -> MergeConfig:
        """As one merge of models."""
        return MergeConfig.model_validate(self.model_dump(include=set(MergeConfig.model_fields)))

    @model_validator(mode="after")
    def _fits_its_models(self) -> Self:
        if (self.method is None) == (self.adapter is None):
            raise ValueError("exactly one of method and adapter is needed")
        if self.adapter is not None:
            other = sorted(self.model_fields_set - {"adapter", "models"})
            if other or len(self.models) != 1:
                wrong = ", ".join(other) or f"{len(self.models)} models"
                raise ValueError(f"adapter goes with the one model that it was trained on, not with {wrong}")
            return self
        self.merge.weights_of(len(self.models))
        if self.sweep is not None:
            self.merge.model_copy(update={"t": self.sweep.over[0]}).weights_of(len(self.models))
        return self


class ReportStage(Strict):
    """Kind report: one page about the stages before it."""

    title: str = Field("", max_length=200, description="Heading; empty: the run's name.")
    stages: list[Name] | None = Field(None, max_length=64, description="Which stages; null: all earlier ones.")


STAGE_CONFIGS: Mapping[str, type[Strict]] = {
    "evaluate": EvaluateStage, "consolidate": ConsolidateStage, "merge": MergeStage, "report": ReportStage,
}  # fmt: skip
"""Kind -> what its config is; prepare and train have a TrainConfig."""
