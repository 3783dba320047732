"""Where local mode keeps what: the files a user reads, and below `.local` the cluster's own memory."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

LOCK = ".lock"
"""Held by the supervisor for as long as it lives; below the workdir, so that one workdir has one supervisor."""


@dataclass(frozen=True)
class RunDir:
    """Paths below `<workdir>/<run>/`."""

    root: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.root.name

    @property
    def events(self) -> Path:
        """One JSON object per decision, action, event and fault."""
        return self.root / "events.jsonl"

    @property
    def status(self) -> Path:
        """The TrainingRun with its status, as `kubectl get -o json` would show it."""
        return self.root / "status.json"

    @property
    def metrics(self) -> Path:
        """One line per optimizer step, merged along the claim chain."""
        return self.root / "metrics.jsonl"

    @property
    def manifest(self) -> Path:
        """What the run was made of and what came of it; `trainrun clone` does it again."""
        return self.root / "manifest.json"

    @property
    def report(self) -> Path:
        """The page to look at."""
        return self.root / "report.html"

    @property
    def checkpoints(self) -> Path:
        """Stands for `spec.checkpoint.path`."""
        return self.root / "checkpoints"

    @property
    def logs(self) -> Path:
        """`<pod>.log`, `operator.log`."""
        return self.root / "logs"

    @property
    def local(self) -> Path:
        """What the local cluster must remember; nobody else's business."""
        return self.root / ".local"

    @property
    def objects(self) -> Path:
        """One file per object of the store."""
        return self.local / "objects"

    @property
    def pods(self) -> Path:
        """One folder per pod uid: process record, progress, termination message."""
        return self.local / "pods"

    @property
    def lost_nodes(self) -> Path:
        """One file per node that is to be lost, or was."""
        return self.local / "lost-nodes"

    @property
    def faults(self) -> Path:
        """`$TRAINRUN_FAULTS`: asked by the supervisor, held by workers."""
        return self.local / "faults"

    @property
    def ports(self) -> Path:
        """Ports given to each job."""
        return self.local / "ports.json"

    @property
    def desired(self) -> Path:
        """What the supervisor wants: {manifest, folder, nodes}; the operator child applies it."""
        return self.local / "desired.json"

    def forget(self) -> None:
        """The run's status and objects, so that it begins anew; what it wrote stays, its events under another name."""
        shutil.rmtree(self.local, ignore_errors=True)
        self.status.unlink(missing_ok=True)
        if self.events.exists():
            told = len(list(self.root.glob("events.*.jsonl")))
            self.events.rename(self.root / f"events.{told + 1}.jsonl")

    def make(self) -> None:
        """Create the folders."""
        for folder in (self.logs, self.objects, self.pods, self.lost_nodes, self.faults, self.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
