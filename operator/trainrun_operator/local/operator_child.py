"""The operator's process in local mode: LocalCluster below, the shipped operator above. Its stdin ends it.

It may be killed at any time; the supervisor starts the next one, which continues from the disk.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from trainrun_operator.clock import SystemClock
from trainrun_operator.local.journal import Journal
from trainrun_operator.local.layout import RunDir
from trainrun_operator.local.local_cluster import LocalCluster
from trainrun_operator.local.workdir import FileLock
from trainrun_operator.operator import Operator
from trainrun_operator.settings import local


def main(folder: str) -> None:
    """Operate the run in this folder until stdin ends: that is the supervisor's order, or its death."""
    run_dir, clock = RunDir(Path(folder)), SystemClock()
    with FileLock(run_dir.local / "operator.lock") as lock:
        lock.wait()  # a predecessor may be on its way out
        journal = Journal(run_dir.events, run_dir.name, clock)
        cluster = LocalCluster(run_dir, clock.now, journal=journal)
        adopted = cluster.start()
        if adopted:
            journal({"type": "adopted", "reason": "PodsAdopted", "message": f"goes on with {', '.join(adopted)}"})
        operator = Operator(cluster, clock, local(), journal)
        operator.start()
        sys.stdin.buffer.read()
        operator.stop()
        cluster.stop()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    main(sys.argv[1])
