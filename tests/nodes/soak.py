"""`make soak`: the node layer three times in a row, and its main faults ten times; a table of what each round did.

The main faults carry the mark `soak`: a node that vanishes, one that HyperPod marks, one that comes back, a worker that
is cut off, operators that are deleted. It stops at the first round in which a test fails or is skipped.
"""

from __future__ import annotations

import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "soak"
WHOLE_ROUNDS = 3
FAULT_ROUNDS = 10
"""The whole rounds count among them."""
INTERRUPTED = 130


def play(number: int, *selection: str) -> bool:
    """One round in a cluster of its own; whether every test of it passed."""
    report, log = OUT / f"round-{number:02d}.xml", OUT / f"round-{number:02d}.log"
    report.unlink(missing_ok=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-v", "tests/nodes", f"--junitxml={report}", *selection]
    with log.open("w") as output:
        code = subprocess.call(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    suite = next(ElementTree.parse(report).iter("testsuite")).attrib if report.exists() else {}
    bad = sum(int(suite.get(kind, "1")) for kind in ("errors", "failures", "skipped"))
    passed = int(suite.get("tests", "0")) - bad
    words = f"{passed:3d} passed, {bad} failed or skipped"
    print(f"round {number:2d}: {words}, {time.monotonic() - began:5.0f} s, {log.relative_to(ROOT)}", flush=True)
    return code == 0 and bad == 0 and passed > 0


def main() -> int:
    """Play the rounds; 1 at the first that is not clean."""
    OUT.mkdir(parents=True, exist_ok=True)
    print(f"soak: {WHOLE_ROUNDS} rounds of about 20 minutes, then {FAULT_ROUNDS - WHOLE_ROUNDS} of about 8", flush=True)
    try:
        for number in range(1, FAULT_ROUNDS + 1):
            if not play(number, *(() if number <= WHOLE_ROUNDS else ("-m", "soak"))):
                return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
