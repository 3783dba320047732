"""report.html: what a run cost, what went wrong and what was done about it, on one self-contained page."""

from __future__ import annotations

from pathlib import Path

from trainrun_api.page.document import write_page

from trainrun_operator.report.page import page
from trainrun_operator.report.records import read

__all__ = ["write_report"]

FILE_NAME = "report.html"


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into the run's folder (`<workdir>/<run>/`) and return its path."""
    return write_page(run_dir / FILE_NAME, page(read(run_dir)))
