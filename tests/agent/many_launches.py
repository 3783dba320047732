"""Runs the launcher once for each contract code in one process, so that torch is imported once.

Arguments: a folder (each code gets a progress folder below it), then the codes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from trainrun_api.contract import Env
from trainrun_trainer import launcher

if __name__ == "__main__":
    for code in sys.argv[2:]:
        folder = Path(sys.argv[1]) / code
        folder.mkdir(parents=True)
        os.environ[Env.PROGRESS_DIR] = str(folder)
        launcher.launch("tests.agent.returning_worker:run", ["trainrun_trainer.launcher_agent"])
