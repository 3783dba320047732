"""One page about the stages of a run."""

from __future__ import annotations

from html import escape
from pathlib import Path


def write_report(root: Path, names: list[str], title: str, out: Path) -> None:
    """Write the page about these stages below `root` to the file `out`."""
    stages = "".join(
        f"<li><pre>{escape((root / 'stages' / name / 'stage.json').read_text())}</pre></li>" for name in names
    )
    out.write_text(f"<!doctype html><title>{escape(title)}</title><h1>{escape(title)}</h1><ol>{stages}</ol>")
