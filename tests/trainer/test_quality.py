"""What leaves before packing, and that the manifest says how much of it: filters, copies, overlap."""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
from trainrun_api.data_config import DataConfig, QualityFilter
from trainrun_trainer.corpus import ngrams
from trainrun_trainer.corpus.filters import failed_rule, language_of
from trainrun_trainer.corpus.jobs import is_held_out
from trainrun_trainer.prepare import prepare
from trainrun_trainer.prepared import DataManifest
from trainrun_trainer.storage import LocalDirectory

PAGES = [topics[name] for name in sorted(topics) if len(topics[name].split()) > 300][:20]
GERMAN = (
    "Im Anfang schuf Gott Himmel und Erde. Und die Erde war wüst und leer, und es war finster auf der Tiefe; und der "
    "Geist Gottes schwebte auf dem Wasser. Und Gott sprach: Es werde Licht! Und es ward Licht."
)


def make(root: Path, documents: dict[str, list[str]], source: dict[str, Any], **changes: Any) -> DataManifest:
    """Sources of these documents."""
    sources = {}
    for name, texts in documents.items():
        (root / name).mkdir(parents=True)
        (root / name / "x.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        sources[name] = {"path": str(root / name), **source}
    raw = {"sources": sources, "tokenizer": {"vocab_size": 400}, "row_tokens": 32, "held_out_share": 0, **changes}
    return prepare(DataConfig.model_validate(raw), LocalDirectory(root / "store"))


def lines_of(data: DataManifest, source: str) -> list[int]:
    """Lines of the source's file that stayed."""
    return [json.loads(line)["line"] for line in (data.folder / source / "documents.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (PAGES[0], None),
        ("too few words", "min_words"),
        ("a b " * 60, "min_mean_word_length"),
        ("Donaudampfschifffahrt " * 60, "max_mean_word_length"),
        ("word # " * 60, "max_symbol_ratio"),
        ("word 12345 " * 60, "min_alphabetic_ratio"),
        ("the same line of words\n" * 20, "max_repeated_lines"),
        ("word " * 100_001, "max_words"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_each_rule_finds_its_kind(text: str, rule: str | None) -> None:
    """S4-03: rules of Gopher's table A1."""
    limits = {"min_mean_word_length": 3.0} if rule != "max_symbol_ratio" else {"min_mean_word_length": 0.0}
    assert failed_rule(text, QualityFilter.model_validate(limits)) == rule


def test_languages_are_told_apart() -> None:
    """S4-06."""
    assert language_of(PAGES[0])[0] == "en"
    assert language_of(GERMAN) == ("de", pytest.approx(1.0, abs=0.01))


def test_removed_shares_are_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By filter, in the manifest and in the log; the index names lines of the file as it was."""
    texts = [PAGES[0], GERMAN * 3, "short", PAGES[1], " ", "the same line of words\n" * 20]
    data = make(tmp_path, {"a": texts}, {"languages": ["en"], "quality": {}})
    source = data.facts["sources"]["a"]
    assert source["read"] == 6
    assert source["removed"] == {"language": 1, "quality.min_words": 1, "empty": 1, "quality.max_repeated_lines": 1}
    assert lines_of(data, "a") == [1, 4]
    (said,) = [json.loads(line) for line in capfd.readouterr().err.splitlines() if '"prepared"' in line]
    assert said["removed_shares"]["language"] == pytest.approx(1 / 6, abs=1e-4)


def nearly(page: str) -> str:
    """A near copy: a few words are others."""
    words = page.split(" ")
    words[5], words[-5] = "another", "altogether"
    return " ".join(words)


def test_copies_leave_over_all_sources(tmp_path: Path) -> None:
    """S2-16, S4-03: exact and near ones; the first in the order of sources stays, and what is only alike stays, too."""
    a = [PAGES[0], PAGES[1], PAGES[0].upper(), PAGES[2]]
    b = [nearly(PAGES[1]), PAGES[3], PAGES[2]]
    both = make(tmp_path / "near", {"a": a, "b": b}, {}, dedupe={})
    assert both.facts["sources"]["a"]["removed"] == {"exact_copy": 1}
    assert both.facts["sources"]["b"]["removed"] == {"exact_copy": 1, "near_copy": 1}
    assert (lines_of(both, "a"), lines_of(both, "b")) == ([1, 2, 4], [2])
    exact = make(tmp_path / "exact", {"a": a, "b": b}, {}, dedupe={"near": False})
    assert lines_of(exact, "b") == [1, 2]


def test_signatures_estimate_the_jaccard_similarity() -> None:
    """Within 4 standard errors of 128 hashes, over documents that share half of their shingles and none."""
    generator = np.random.default_rng(3)
    words = generator.integers(0, 2**64, 3000, np.uint64)
    for shared in (0, 1000, 1900):
        left, right = words[:2000], np.concatenate([words[:shared], words[2000 : 2000 + 1000]])
        both = [set(ngrams.ngram_hashes(side, ngrams.SHINGLE_WORDS).tolist()) for side in (left, right)]
        truth = len(both[0] & both[1]) / len(both[0] | both[1])
        found = float(np.mean(ngrams.signature(left) == ngrams.signature(right)))
        assert abs(found - truth) <= 4 * (truth * (1 - truth) / 128) ** 0.5 + 1e-9


def test_held_out_text_in_training_text_is_reported(tmp_path: Path) -> None:
    """A held-out page that a training page quotes; without the quotation nothing is found."""
    held = [page for page in PAGES if is_held_out(page, 0.5)]
    kept = [page for page in PAGES if not is_held_out(page, 0.5)]
    quoting = f"{kept[0]}\n{' '.join(held[0].split()[100:160])}"
    assert held and not is_held_out(quoting, 0.5), "the pages fall on both sides"
    before = make(tmp_path / "before", {"a": [*held, *kept[1:]]}, {}, held_out_share=0.5).facts["contamination"]["a"]
    after = make(tmp_path / "after", {"a": [*held, *kept[1:], quoting]}, {}, held_out_share=0.5)
    report = after.facts["contamination"]["a"]
    assert report["documents"] == before["documents"] == len(held)
    assert report["shared_runs"] - before["shared_runs"] >= 60 - 13 - 10
    assert report["overlapping"] >= 1
    off = make(tmp_path / "off", {"a": PAGES}, {}, held_out_share=0.5, contamination_words=0)
    assert off.facts["contamination"] == {}
