"""A worker that does nothing but return the contract code that its progress folder is named after."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from trainrun_api.contract import CAUSE_OF_EXIT, Env


def run() -> dict[str, Any]:
    """One outcome; each run leaves a mark, so that a second one would be seen."""
    folder = Path(os.environ[Env.PROGRESS_DIR])
    with open(folder / "runs", "a") as handle:
        handle.write("x")
    code = int(folder.name)
    return {"exit_code": code, "cause": CAUSE_OF_EXIT[code], "message": "as asked", "step": 7, "target_step": 9}
