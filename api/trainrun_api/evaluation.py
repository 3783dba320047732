"""What evaluation.json (design section 6) says, as the lines of a table. Whoever shows an evaluation reads it here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

BASELINE, MODEL = "baseline", "model"
RESULT = "evaluation.json"
OTHER_TOKENS = "other_tokens"
"""Of a column: in what its tokenizer is not the first column's; absent where it is."""
PERPLEXITY = "perplexity"
"""With it begin the measures of which less is better, and which are means over tokens."""
ROUGE = ("rouge1", "rouge2", "rougeL")
TITLES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "exact_match": "exact match"}


def measures(result: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """(measure, {column: value}) for every line of the table."""
    for name, columns in result["perplexity"].items():
        yield f"{PERPLEXITY}, {name}", {column: of["perplexity"] for column, of in columns.items()}
    for name, columns in result["questions"].items():
        for measure in (*ROUGE, "exact_match"):
            yield f"{TITLES[measure]}, {name}", {column: of[measure] for column, of in columns.items()}
    for name, columns in result["labels"].items():
        yield f"accuracy, {name}", {column: of["accuracy"] for column, of in columns.items()}
        for measure in ("precision", "recall", "f1"):
            shown = {c: of["labels"][of["positive"]] if of["positive"] else of["macro"] for c, of in columns.items()}
            yield f"{measure}, {name}", {column: of[measure] for column, of in shown.items()}
    for name, columns in result["lm_eval"].items():
        yield f"lm-eval {name}", columns
