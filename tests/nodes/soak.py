"""`make soak`: the node layer three times in a row, and its main faults ten times; a line for each round.

The main faults carry the mark `soak`: a node that vanishes, one that HyperPod marks, one that comes back, a worker that
is cut off, operators that are deleted. Two rounds run at a time, each a cluster in a network of its own: two cores can
bear it, and tests that pass beside others are worth more. No round begins after one that was not clean.

    python -m tests.nodes.soak [--whole 3] [--faults 10] [--lanes 2]
"""

from __future__ import annotations

import argparse
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.chart.helm import FetchError
from tests.controlplane.binaries import BuildError
from tests.nodes.cluster import session
from tests.nodes.machine import Unavailable
from tests.run_layers import Tally, count

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "soak"
APART = 'mount -t tmpfs trainrun-soak /run && ip link set lo up && exec "$@"'
"""A network and a /run that nobody else sees."""
INTERRUPTED = 130


class Soak:
    """Rounds that wait, and whether all were clean so far."""

    def __init__(self, whole: int, faults: int) -> None:
        self.is_clean = True
        self._waiting: queue.SimpleQueue[tuple[int, list[str]]] = queue.SimpleQueue()
        for number in range(1, max(whole, faults) + 1):
            self._waiting.put((number, [] if number <= whole else ["-m", "soak"]))

    def work(self, lane: int) -> None:
        """Play rounds until none is left, or one was not clean."""
        while self.is_clean:
            try:
                number, selection = self._waiting.get_nowait()
            except queue.Empty:
                return
            if not play(lane, number, selection):
                self.is_clean = False


def play(lane: int, number: int, selection: list[str]) -> bool:
    """One round in a cluster of its own; whether every test of it passed."""
    report, log = OUT / f"round-{number:02d}.xml", OUT / f"round-{number:02d}.log"
    report.unlink(missing_ok=True)
    began = time.monotonic()
    tests = [sys.executable, "-m", "pytest", "-v", "tests/nodes", f"--junitxml={report}", *selection]
    command = ["unshare", "--net", "--mount", "sh", "-c", APART, "soak", *tests]
    with log.open("w") as output:
        code = subprocess.call(
            command, cwd=ROOT, env={**os.environ, "TRAINRUN_NODES_LANE": f"-{lane}"}, stdout=output, stderr=output
        )
    tally = Tally()
    if report.exists():
        count(report, tally)
    what = "main faults" if selection else "all scenarios"
    print(
        f"round {number:2d}, {what}: {tally.passed:2d} passed, {tally.failed} failed, {tally.skipped.total()} skipped, "
        f"{time.monotonic() - began:5.0f} s, {log.relative_to(ROOT)}",
        flush=True,
    )
    return code == 0 and tally.passed > 0 and not tally.skipped


def main() -> int:
    """Play the rounds; 1 when one was not clean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", type=int, default=3, help="rounds of all scenarios (%(default)s)")
    parser.add_argument("--faults", type=int, default=10, help="rounds of the main faults, whole ones counted")
    parser.add_argument("--lanes", type=int, default=2, help="rounds at a time (%(default)s)")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    soak = Soak(options.whole, options.faults)
    try:
        with session():  # images are made, and nobody else changes them meanwhile
            print("soak: a round of all scenarios takes about 25 minutes, one of the main faults 10", flush=True)
            lanes = [threading.Thread(target=soak.work, args=(lane,)) for lane in range(1, options.lanes + 1)]
            for lane in lanes:
                lane.start()
            for lane in lanes:
                lane.join()
    except (Unavailable, BuildError, FetchError) as problem:
        print(f"soak: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # the rounds got it as well, and take their clusters away
        soak.is_clean = False
        return INTERRUPTED
    return 0 if soak.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
