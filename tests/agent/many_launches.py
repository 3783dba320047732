"""Runs the launcher once for each contract code in one process, so that torch is imported once.

Arguments: a folder (each code gets a progress folder below it), then the codes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from trainrun_trainer import launcher
from trainrun_trainer.launcher_group import launch

if __name__ == "__main__":
    launcher.prepare_environment()
    launcher.start_fork_server(["trainrun_trainer.launcher_group"])
    for code in sys.argv[2:]:
        folder = Path(sys.argv[1]) / code
        folder.mkdir(parents=True)
        launch("tests.agent.returning_worker:run", str(folder), "forkserver")
