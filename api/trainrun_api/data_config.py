"""DataConfig: which text, how it becomes tokens, rows and a mix. All of it is immutable for the life of a run.

Its hash names the prepared data, so that a field added later must not change the hash of a configuration that does not
use it: `FIRST_FIELDS` are the fields that were there from the start, the others count only when they are set.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from trainrun_api.base import Strict

ROW_TOKENS = 4096
"""As long as the context of the models that are usually trained; one with a shorter context says so."""


class TokenizerConfig(Strict):
    """Byte-level BPE trained from the run's own text, or a folder that transformers can load."""

    vocab_size: int | None = Field(
        None,
        ge=260,
        le=1_000_000,
        description="Train a byte-level BPE of this size; exactly one of vocab_size and path.",
    )
    path: str | None = Field(None, min_length=1, max_length=1024, description="Folder with tokenizer files.")


class InstructionFormat(Strict):
    """Rows of prompt and response: packed whole, loss on the response only."""

    prompt_field: str = Field("instruction", min_length=1, max_length=128, description="Column of the instruction.")
    context_field: str = Field(
        "context", min_length=1, max_length=128, description="Column of the context, which a row may lack."
    )
    response_field: str = Field("response", min_length=1, max_length=128, description="Column of the response.")
    messages_field: str | None = Field(
        None,
        min_length=1,
        max_length=128,
        description="Column of a conversation (list of role and content), rendered by the tokenizer's chat template "
        "with loss on the assistant's turns; takes the place of the three columns.",
    )
    too_long: Literal["refuse", "drop"] = Field(
        "refuse", description="What happens to a row of more than row_tokens tokens; drop: counted in the manifest."
    )


class QualityFilter(Strict):
    """Rules of thumb that leave out what is no prose; the defaults are those of Gopher (Rae et al. 2021, table A1)."""

    min_words: int = Field(50, ge=0, le=1_000_000_000, description="Fewest words of a document.")
    max_words: int = Field(100_000, ge=1, le=1_000_000_000, description="Most words of a document.")
    min_mean_word_length: float = Field(3.0, ge=0, le=1000, description="Shortest mean word, in characters.")
    max_mean_word_length: float = Field(10.0, ge=0, le=1000, description="Longest mean word, in characters.")
    max_symbol_ratio: float = Field(0.1, ge=0, le=1000, description="Most '#' and '...' for each word.")
    min_alphabetic_ratio: float = Field(0.8, ge=0, le=1, description="Smallest share of words with a letter.")
    max_repeated_lines: float = Field(0.3, ge=0, le=1, description="Largest share of lines that were seen before.")


class DataSource(Strict):
    """One named set of documents."""

    path: str = Field(
        min_length=1,
        max_length=1024,
        description="Folder or s3:// prefix of .txt and .html files (one document each), .jsonl files (also .gz and "
        ".zst), .parquet files, WebDataset .tar files, or a dataset that Hugging Face's save_to_disk wrote; relative "
        "paths start at the working directory of the container, in local mode at the manifest's folder.",
    )
    text_field: str = Field(
        "text", min_length=1, max_length=128, description="JSON field or column that holds the text."
    )
    instruct: InstructionFormat | None = Field(
        None, description="Read prompt and response instead of text (instruction tuning)."
    )
    languages: list[Annotated[str, StringConstraints(pattern="^[a-z]{2,3}$", max_length=3)]] = Field(
        default_factory=list,
        max_length=32,
        description="Keep documents in these languages only (ISO 639 codes such as en); empty: all.",
    )
    min_language_probability: float = Field(
        0.65, ge=0, le=1, description="Least probability of the language that the detector finds."
    )
    quality: QualityFilter | None = Field(None, description="Rules that documents must pass; null: none.")


class Dedupe(Strict):
    """Copies leave; the first one in the order of sources and files stays."""

    near: bool = Field(True, description="Also near copies, by MinHash over word 5-grams.")
    min_similarity: float = Field(
        0.8, ge=0.5, le=1, description="Estimated Jaccard similarity from which a document is a near copy."
    )


class DataConfig(Strict):
    """Text, tokenizer, rows and mix. All of it is immutable for the life of a run."""

    sources: dict[str, DataSource] = Field(
        min_length=1, max_length=32, description="Named sources; names are DNS labels."
    )
    mix: dict[str, Annotated[float, Field(ge=0, le=1e9)]] = Field(
        default_factory=dict,
        max_length=32,
        description="Weight per source (any positive scale, 0 leaves a source out of training but in evaluation); "
        "empty: equal weights. Exact in every block of 10,000 rows.",
    )
    tokenizer: TokenizerConfig = Field(description="How text becomes tokens.")
    row_tokens: int = Field(ROW_TOKENS, ge=8, le=1_048_576, description="Tokens of a packed row, exactly.")
    held_out_share: float = Field(
        0.02, ge=0, lt=1, description="Share of documents kept from training, chosen by document hash before packing."
    )
    dedupe: Dedupe | None = Field(None, description="Leave out copies over all sources; null: keep them.")
    contamination_words: int = Field(
        13,
        ge=0,
        le=64,
        description="Report how many held-out documents share a run of so many words with training text; 0: do not.",
    )
    processes: int | None = Field(
        None, ge=1, le=1024, description="Processes that read and tokenise; null: one for each core, as text demands."
    )


FIRST_FIELDS = frozenset(
    {"sources", "mix", "tokenizer", "row_tokens", "held_out_share", "path", "text_field", "vocab_size"}
)
WITHOUT_EFFECT = frozenset({"processes"})
"""Fields that change how rows are made, and not one byte of them."""


def identity(config: DataConfig) -> dict[str, Any]:
    """What the hash of the prepared data is taken of: equal for all configurations that give equal rows."""
    dumped = _counted(config)
    dumped["sources"] = {name: _counted(source) for name, source in config.sources.items()}
    return dumped


def _counted(part: Strict) -> dict[str, Any]:
    defaults = {name: field.get_default(call_default_factory=True) for name, field in type(part).model_fields.items()}
    return {
        name: value
        for name, value in part.model_dump().items()
        if name not in WITHOUT_EFFECT and (name in FIRST_FIELDS or value != defaults[name])
    }
