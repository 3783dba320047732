"""The report tells of the text: removed shares by filter, and held-out documents found in training text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainrun_api.page.words import UNKNOWN
from trainrun_trainer.reporting import write_report

from tests.report.pages import Page
from tests.trainer import stage_folders as folders


def prepared(root: Path, place: str, *, read: int, removed: dict[str, int], overlapping: int) -> None:
    """manifest.json of one source."""
    split = {"rows": 9, "tail_tokens": 0}
    facts: dict[str, Any] = {
        "config": {"contamination_words": 13},
        "contamination": {"law": {"documents": 40, "overlapping": overlapping, "runs": 500, "shared_runs": 60}},
        "sources": {
            "law": {
                "read": read, "removed": removed,
                "train": {**split, "documents": read - 40, "tokens": 1_200_000},
                "held_out": {**split, "documents": 40, "tokens": 50_000},
            }
        },
    }  # fmt: skip
    folders.write(root / place / "manifest.json", facts)


def page(root: Path, *places: str) -> Page:
    names = []
    for number, place in enumerate(places):
        names.append(f"stage-{number}")
        folders.train_stage(root, names[-1], 40 * number, (7.0, 4.8), data=place)
    write_report(root, names, "Texts", root / "out")
    return Page(root / "out" / "report.html")


def test_each_source_has_a_line_with_what_was_removed_and_what_overlaps(tmp_path: Path) -> None:
    """Stages that read the same text share it."""
    prepared(tmp_path, "data/a", read=1000, removed={"near_copy": 31, "language": 2}, overlapping=10)
    prepared(tmp_path, "data/b", read=1000, removed={}, overlapping=0)
    shown = page(tmp_path, "data/a", "data/a", "data/b")
    assert "<h2>What it read</h2>" in shown.source
    line = "law 1,000 near copy 3.1 %, language 0.2 % 960 1.2 M 40 10 (25.0 %) stage-0, stage-1"
    assert line in shown.text and "law 1,000 nothing 960 1.2 M 40 0 (0.0 %) stage-2" in shown.text
    assert "share a run of 13 words with it" in shown.text


def test_text_that_is_gone_is_not_told_of(tmp_path: Path) -> None:
    """A prepared folder may be removed once everything is trained."""
    assert "What it read" not in page(tmp_path / "gone", "data/gone").source


def test_a_manifest_of_another_version_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    """What it does not say is a dash."""
    folders.write(tmp_path / "data/odd/manifest.json", {"sources": {"law": {}}})
    line = f"law {UNKNOWN} nothing {' '.join([UNKNOWN] * 4)} stage-0"
    assert line in page(tmp_path, "data/odd").text
