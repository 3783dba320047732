"""`python -m trainrun_operator.report RUNDIR` writes RUNDIR/report.html and prints its path."""

from __future__ import annotations

import sys
from pathlib import Path

from trainrun_operator.report import write_report


def main(arguments: list[str]) -> int:
    """Exit code: 0, or 20 when there is no such run."""
    if len(arguments) != 1 or not (Path(arguments[0]) / "status.json").exists():
        print(
            "usage: python -m trainrun_operator.report RUNDIR, the folder that holds a run's status.json",
            file=sys.stderr,
        )
        return 20
    print(write_report(Path(arguments[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
