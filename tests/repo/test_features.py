"""docs/features.md has one row for every requirement, and names nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "features.md").read_text()
COUNTS = {"S0": 27, "S1": 21, "S2": 40, "S3": 22, "S4": 26}
ROWS = re.findall(r"^\| (S\d-\d\d) \| (.+) \| (.+?) \| (.*)\|$", PAGE, re.MULTILINE)
STATES = {"yes", "part", "not yet", "outside"}


def test_every_requirement_has_one_row() -> None:
    wanted = [f"{seed}-{number:02}" for seed, count in COUNTS.items() for number in range(1, count + 1)]
    assert [row[0] for row in ROWS] == wanted


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_names_what_exists(row: tuple[str, str, str, str]) -> None:
    """Paths in backticks are files; what is done or done in part says where."""
    _, _, state, where = row
    assert state in STATES
    paths = [path for path in re.findall(r"`([^`]+)`", where) if "/" in path]
    assert all((ROOT / path).is_file() for path in paths), [path for path in paths if not (ROOT / path).is_file()]
    assert state not in ("yes", "part") or where.strip()
