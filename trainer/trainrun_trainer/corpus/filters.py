"""Which documents stay: language and rules of thumb. Each filter answers with its name when a document must leave.

The rules and their defaults are those of Gopher (Rae et al. 2021, arXiv:2112.11446, table A1), but for repeated lines
within a document, which it counts in the same way, and stop words, which would be for English only.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from trainrun_api.data_config import DataSource, QualityFilter

_SYMBOLS = re.compile(r"#|\.\.\.|…")
_SEEN_CHARACTERS = 4000
"""The detector reads the beginning of a document: more makes it slower, not surer."""


def why_removed(text: str, source: DataSource) -> str | None:
    """Name of the first filter that a document fails; None: it stays."""
    if not text.strip():
        return "empty"
    if source.quality is not None and (rule := failed_rule(text, source.quality)) is not None:
        return f"quality.{rule}"
    if source.languages:
        language, probability = language_of(text[:_SEEN_CHARACTERS])
        if language not in source.languages or probability < source.min_language_probability:
            return "language"
    return None


def failed_rule(text: str, rules: QualityFilter) -> str | None:
    """Name of the first quality rule that is broken."""
    words = text.split()
    number = len(words)
    if number < rules.min_words:
        return "min_words"
    if number > rules.max_words:
        return "max_words"
    if not number:
        return None
    mean = sum(map(len, words)) / number
    if mean < rules.min_mean_word_length:
        return "min_mean_word_length"
    if mean > rules.max_mean_word_length:
        return "max_mean_word_length"
    if len(_SYMBOLS.findall(text)) / number > rules.max_symbol_ratio:
        return "max_symbol_ratio"
    if sum(any(map(str.isalpha, word)) for word in words) / number < rules.min_alphabetic_ratio:
        return "min_alphabetic_ratio"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if 1 - len(set(lines)) / len(lines) > rules.max_repeated_lines:
        return "max_repeated_lines"
    return None


def language_of(text: str) -> tuple[str, float]:
    """ISO 639-1 code and probability, by langid (Lui and Baldwin 2012), whose model is inside the package."""
    code, probability = _detector().classify(text)
    return str(code), float(probability)


@lru_cache(maxsize=1)
def _detector() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
