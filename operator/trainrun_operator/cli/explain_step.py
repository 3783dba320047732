"""`trainrun explain-step`: which documents a step read. The trainer's own code answers, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from trainrun_operator.cli.finding import find_run

MODULE = "trainrun_trainer.explain_step"


def explain_step(
    step: int, name: str | None, workdir: Path, checkpoint: str | None, stage: str | None, *, is_json: bool
) -> int:
    """Ask; the answer goes straight to the terminal. Raises LocalModeError if there is no such run."""
    place = checkpoint or str(find_run(workdir, name).checkpoints)
    command = [sys.executable, "-m", MODULE, str(step), "--checkpoint", place]
    command += ["--stage", stage] if stage is not None else []
    return subprocess.call([*command, "--json"] if is_json else command)
