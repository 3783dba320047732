"""`trainrun report`: writes the page again."""

from __future__ import annotations

from pathlib import Path

from trainrun_operator.cli.finding import find_run
from trainrun_operator.report import write_report


def make_report(workdir: Path, name: str | None) -> int:
    """Write report.html and print its path."""
    run_dir = find_run(workdir, name)
    write_report(run_dir.root)
    print(run_dir.report)
    return 0
