"""Run the test layers one after the other and say what each took and what was skipped, and why.

    python tests/run_layers.py            every layer but those that run by name only
    python tests/run_layers.py sim local  these layers

The first run of `control-plane` builds a Kubernetes control plane with Go (a quarter of an hour on two cores), once.
`nodes` runs by name only: it needs root, and its first run makes images of 5 GB.

A layer that cannot run on this machine says so and is skipped; with TRAINRUN_REQUIRE=all that is a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PYTEST = [sys.executable, "-m", "pytest", "-q", "--durations=5"]
CORE_COVERAGE = [
    "--cov=trainrun_operator.core",
    "--cov-branch",
    "--cov-fail-under=100",
    "--cov-report=term:skip-covered",
]

HARNESS = sorted(str(path) for part in ("controlplane", "nodes") for path in (ROOT / "tests" / part).glob("*.py"))
"""Test programs that are big enough to be wrong: typed as strictly as the product."""

LAYERS: dict[str, list[list[str]]] = {
    "lint": [
        [str(BIN / "ruff"), "check", "."],
        [str(BIN / "ruff"), "format", "--check", "--quiet", "."],
        [str(BIN / "lint-imports")],
        [str(BIN / "codespell"), "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "api", "operator", "trainer"],
        [str(BIN / "mypy")],
        [str(BIN / "mypy"), *HARNESS],
    ],
    "unit": [
        [*PYTEST, "tests/api", "tests/repo", "tests/report"],
        [*PYTEST, "tests/operator", *CORE_COVERAGE],
    ],
    "sim": [[*PYTEST, "tests/sim"]],
    "chart": [[*PYTEST, "tests/chart"]],
    "trainer": [[*PYTEST, "tests/trainer", "tests/agent"]],
    "local": [[*PYTEST, "tests/local"]],
    "control-plane": [
        [sys.executable, "-m", "tests.controlplane.binaries"],
        [*PYTEST, "tests/controlplane"],
    ],
    "demo": [[sys.executable, "examples/01-local/demo.py"]],
}
"""Commands of each layer, cheapest layer first, so that a mistake is told early."""

BY_NAME: dict[str, list[list[str]]] = {
    "nodes": [
        [sys.executable, "-m", "tests.nodes.prepare"],
        [*PYTEST, "tests/nodes"],
    ],
}
"""Layers that run only when they are asked for."""


@dataclass
class Tally:
    """What one layer did."""

    passed: int = 0
    failed: int = 0
    skipped: list[str] = field(default_factory=list)
    seconds: float = 0.0


def count(report: Path, tally: Tally) -> None:
    """Add the tests of one junit report to the tally."""
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        skip = case.find("skipped")
        if skip is not None:
            tally.skipped.append(f"{name}: {skip.get('message')}")
        elif case.find("failure") is not None or case.find("error") is not None:
            tally.failed += 1
        else:
            tally.passed += 1


def run_layer(name: str, reports: Path) -> Tally:
    """Run the commands of one layer to the end, also after a failure, so that one run tells everything."""
    tally = Tally()
    started = time.monotonic()
    for number, command in enumerate((LAYERS | BY_NAME)[name]):
        is_pytest = command[:3] == PYTEST[:3]
        report = reports / f"{name}-{number}.xml"
        print(
            f"--- {name}: {' '.join(Path(command[0]).name if i == 0 else c for i, c in enumerate(command))}", flush=True
        )
        code = subprocess.call([*command, f"--junitxml={report}"] if is_pytest else command, cwd=ROOT)
        before = tally.failed
        if is_pytest and report.exists():
            count(report, tally)
        elif code == 0:
            tally.passed += 1
        if code != 0 and tally.failed == before:  # the command failed, not a test of it (coverage, collection, lint)
            tally.failed += 1
    tally.seconds = time.monotonic() - started
    return tally


def main(names: list[str]) -> int:
    """Run the layers; 0 when nothing failed and, under TRAINRUN_REQUIRE=all, nothing was skipped."""
    unknown = [n for n in names if n not in LAYERS | BY_NAME]
    if unknown:
        print(f"no layer named {unknown[0]}; the layers are {', '.join(LAYERS | BY_NAME)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="trainrun-reports-") as reports:
        tallies = {name: run_layer(name, Path(reports)) for name in names or LAYERS}
    required = os.environ.get("TRAINRUN_REQUIRE") == "all"
    print("\nlayer      passed  failed  skipped  seconds")
    for name, tally in tallies.items():
        print(f"{name:<9} {tally.passed:>7} {tally.failed:>7} {len(tally.skipped):>8} {tally.seconds:>8.0f}")
        for reason in tally.skipped:
            print(f"          skipped {reason}{' (required here, so this is a failure)' if required else ''}")
    passed, failed = sum(t.passed for t in tallies.values()), sum(t.failed for t in tallies.values())
    skipped = sum(len(t.skipped) for t in tallies.values())
    print(f"total {sum(t.seconds for t in tallies.values()) / 60:.1f} min")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed or (required and skipped) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
