"""What is measured, as a user writes it in the tasks file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints
from trainrun_api.base import Strict
from trainrun_api.data_config import InstructionFormat

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?$")]


class TextSet(Strict):
    """A named set of text for perplexity: files, or the held-out rows of a run's prepared data."""

    path: str | None = Field(None, description="File or folder of documents; exactly one of path and prepared.")
    text_field: str = Field("text", min_length=1, max_length=128, description="Field or column that holds the text.")
    prepared: str | None = Field(None, description="<checkpoint.path>/data/<hash> of a run with the same tokenizer.")
    source: str = Field("", description="Which source of the prepared data.")
    max_documents: int = Field(1000, ge=1, le=10_000_000, description="Documents (or rows) read, the first ones.")
    max_ratio: float | None = Field(
        None, gt=0, description="Perplexity above so many times the baseline's is told as a loss of general ability."
    )


class Questions(Strict):
    """Fixed prompts with references: answers are generated and compared."""

    path: str = Field(description="File or folder of instruction, context (may be missing) and response.")
    fields: InstructionFormat = Field(default_factory=InstructionFormat, description="Names of the columns.")
    max_questions: int = Field(100, ge=1, le=1_000_000, description="Questions asked, the first ones.")
    max_new_tokens: int = Field(64, ge=1, le=100_000, description="Longest answer.")
    temperature: float = Field(0.0, ge=0, le=10, description="0: always the likeliest token.")
    seed: int = Field(
        0, ge=0, le=2**53, description="Of every answer, with its place: answers do not depend on others."
    )
    outputs: dict[Name, str] = Field(
        default_factory=dict, max_length=16,
        description="Answers of other systems to the same questions, by name: .jsonl files with a field `output`, one "
        "line per question; they become columns of the report.",
    )  # fmt: skip


class Labels(Strict):
    """Labelled text: the label whose words are likeliest after the prompt is the answer; nothing is parsed."""

    path: str = Field(description="File or folder of text and label.")
    text_field: str = Field("text", min_length=1, max_length=128, description="Column of the text.")
    label_field: str = Field("label", min_length=1, max_length=128, description="Column of the label.")
    labels: dict[str, str] = Field(
        min_length=2, max_length=64, description="Label to the words that stand for it, such as spam: ' spam'."
    )
    prompt: str = Field("{text}\n\nLabel:", description="What comes before the label's words; {text} is the text.")
    max_text_tokens: int = Field(256, ge=1, le=1_000_000, description="Longer texts are cut here, and counted.")
    max_texts: int = Field(1000, ge=1, le=10_000_000, description="Texts read, the first ones.")
    positive: str | None = Field(None, description="The label that precision, recall and F1 of the report are of.")


class LmEval(Strict):
    """lm-evaluation-harness in an environment of its own, on task files of one's own; nothing is downloaded."""

    python: str = Field(description="Interpreter of the environment that has lm_eval.")
    tasks: list[Name] = Field(min_length=1, max_length=64, description="Names of tasks.")
    include_path: str = Field(description="Folder of the task files.")
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
