"""Run the test layers one after the other and say what each took and what was skipped, and why.

    python tests/run_layers.py            every layer
    python tests/run_layers.py sim local  these layers

Where every layer runs, `nodes` runs beside the others, since it mostly waits; its output comes at its end. The first
run builds a Kubernetes control plane with Go and images of 5 GB (half an hour on two cores, beside the other layers).

A layer that cannot run on this machine says so and is skipped; with TRAINRUN_REQUIRE=all that is a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

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

BENCHES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "bench").glob("*.py"))
BENCH_OF_CLUSTERS = [path for path in BENCHES if "from bench." in (ROOT / path).read_text() or "scale" in path]
BENCH_OF_TRAINING = [path for path in BENCHES if path not in BENCH_OF_CLUSTERS]
"""Nothing else would tell that a benchmark no longer fits what it measures. The first import each other as a package;
the others, whose sides run in environments of their own, by their names."""

LAYERS: dict[str, list[list[str]]] = {
    "lint": [
        [str(BIN / "ruff"), "check", "."],
        [str(BIN / "ruff"), "format", "--check", "--quiet", "."],
        [str(BIN / "lint-imports")],
        [str(BIN / "codespell"), "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "api", "operator", "trainer"],
        # DL3066: "root" is the one name that every base resolves
        [str(BIN / "hadolint"), "--ignore=DL3066", "Dockerfile.operator", "Dockerfile.trainer"],
        [str(BIN / "mypy")],
        [str(BIN / "mypy"), *HARNESS, *BENCH_OF_CLUSTERS],
        ["env", "MYPYPATH=bench", str(BIN / "mypy"), *BENCH_OF_TRAINING],
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
    "story": [[*PYTEST, "tests/story"]],
    "nodes": [
        [sys.executable, "-m", "tests.nodes.prepare"],
        [*PYTEST, "tests/nodes"],
    ],
}
"""Commands of each layer, cheapest layer first, so that a mistake is told early."""

BESIDE = "nodes"
"""Runs beside the others: kubelets, grace periods and outages leave the processor to them most of the time."""
NICENESS = 5
"""Of the layer beside: the others wait for nobody."""


@dataclass
class Tally:
    """What one layer did."""

    passed: int = 0
    failed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """How many, by reason."""
    seconds: float = 0.0


def count(report: Path, tally: Tally) -> None:
    """Add the tests of one junit report to the tally."""
    for case in ElementTree.parse(report).iter("testcase"):
        skip = case.find("skipped")
        if skip is not None:
            tally.skipped[str(skip.get("message"))] += 1
        elif case.find("failure") is not None or case.find("error") is not None:
            tally.failed += 1
        else:
            tally.passed += 1


STOP = threading.Event()
"""Ctrl-C came: it ends the command that runs in each layer, and none is to follow."""


def run_layer(name: str, reports: Path, output: TextIO | None = None) -> Tally:
    """Run the commands of one layer to the end, also after a failure, so that one run tells everything."""
    tally = Tally()
    started = time.monotonic()
    for number, command in enumerate(LAYERS[name]):
        if STOP.is_set():
            break
        is_pytest = command[:3] == PYTEST[:3]
        report = reports / f"{name}-{number}.xml"
        words = " ".join(Path(command[0]).name if i == 0 else c for i, c in enumerate(command))
        print(f"--- {name}: {words}", flush=True, file=output)
        with_report = [*command, f"--junitxml={report}"] if is_pytest else command
        code = subprocess.call(with_report, cwd=ROOT, stdout=output, stderr=output)
        before = tally.failed
        if is_pytest and report.exists():
            count(report, tally)
        elif code == 0:
            tally.passed += 1
        if code != 0 and tally.failed == before:  # the command failed, not a test of it (coverage, collection, lint)
            tally.failed += 1
    tally.seconds = time.monotonic() - started
    return tally


def run_all(reports: Path) -> dict[str, Tally]:
    """Every layer, one of them beside the others."""
    log = reports / f"{BESIDE}.log"
    with log.open("w") as output, ThreadPoolExecutor(1, initializer=os.nice, initargs=(NICENESS,)) as pool:
        print(f"--- {BESIDE}: beside the others, its output comes at the end", flush=True)
        beside = pool.submit(run_layer, BESIDE, reports, output)
        try:
            tallies = {name: run_layer(name, reports) for name in LAYERS if name != BESIDE}
            tallies[BESIDE] = beside.result()
        except KeyboardInterrupt:
            STOP.set()
            raise
    print(log.read_text(errors="replace"), flush=True)
    return tallies


def main(names: list[str]) -> int:
    """Run the layers; 0 when nothing failed and, under TRAINRUN_REQUIRE=all, nothing was skipped."""
    unknown = [n for n in names if n not in LAYERS]
    if unknown:
        print(f"no layer named {unknown[0]}; the layers are {', '.join(LAYERS)}", file=sys.stderr)
        return 2
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trainrun-reports-") as folder:
        reports = Path(folder)
        tallies = {name: run_layer(name, reports) for name in names} if names else run_all(reports)
    required = os.environ.get("TRAINRUN_REQUIRE") == "all"
    print("\nlayer          passed  failed  skipped  seconds")
    for name, tally in tallies.items():
        print(f"{name:<13} {tally.passed:>7} {tally.failed:>7} {tally.skipped.total():>8} {tally.seconds:>8.0f}")
        for reason, times in tally.skipped.items():
            print(f"    skipped {times}: {reason}{' (required here, so this is a failure)' if required else ''}")
    passed, failed = sum(t.passed for t in tallies.values()), sum(t.failed for t in tallies.values())
    skipped = sum(t.skipped.total() for t in tallies.values())
    print(f"total {(time.monotonic() - started) / 60:.1f} min")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed or (required and skipped) else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
