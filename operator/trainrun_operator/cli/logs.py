"""`trainrun logs`: the output of pods, with the pod's name in front when there are several."""

from __future__ import annotations

import re
import time
from pathlib import Path

from trainrun_operator.cli.finding import find_run
from trainrun_operator.errors import LocalModeError
from trainrun_operator.local.layout import RunDir
from trainrun_operator.local.state import live_pods
from trainrun_operator.local.tailing import Follower

POLL_SECONDS = 0.2
POD_LOG = re.compile(r"(?P<job>.+-a(?P<attempt>\d+))-worker-(?P<index>\d+)\.log")


def show_logs(workdir: Path, name: str | None, pod: str | None, *, follow: bool) -> int:
    """Print logs; with `follow` until no process of the run lives."""
    run_dir = find_run(workdir, name)
    followers: dict[Path, Follower] = {}
    while True:
        is_alive = bool(live_pods(run_dir))
        for path in _chosen(run_dir, pod):
            follower = followers.setdefault(path, Follower(path))
            prefix = f"{path.stem}: " if len(followers) > 1 or pod is None else ""
            for line in follower.lines():
                print(f"{prefix}{line}", flush=True)
        if not follow or not is_alive:
            return 0
        time.sleep(POLL_SECONDS)


def _chosen(run_dir: RunDir, pod: str | None) -> list[Path]:
    """Log files by attempt and index. A number chooses that worker, a name that pod; both of the newest attempt."""
    if pod is not None and not pod.isdigit():
        path = run_dir.logs / f"{pod}.log"
        if not path.exists():
            names = ", ".join(sorted(p.stem for p in run_dir.logs.glob("*.log")))
            raise LocalModeError(f"{run_dir.name} has no log of {pod}; there are {names}")
        return [path]
    found = [(match, path) for path in run_dir.logs.glob("*.log") if (match := POD_LOG.fullmatch(path.name))]
    newest = max((int(match["attempt"]) for match, _ in found), default=0)
    chosen = [
        (int(match["index"]), path)
        for match, path in found
        if int(match["attempt"]) == newest and (pod is None or match["index"] == pod)
    ]
    return [path for _, path in sorted(chosen)]
