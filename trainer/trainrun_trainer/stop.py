"""Stop requests. The agent writes `stop.json`; each rank looks once per step and the flag joins the step's
all-reduce, so all ranks stop after the same step, save together and return 10 (or 11 at a time limit)."""

from __future__ import annotations

import json
from pathlib import Path

from trainrun_api.contract import ExitCode, ProgressFile


class StopRequests:
    """Looks for this pod's stop request."""

    def __init__(self, folder: str | None) -> None:
        self._path = None if folder is None else Path(folder) / ProgressFile.STOP_REQUEST

    def code(self) -> int | None:
        """Exit code that the agent asks for: 10 or 11; None: go on."""
        if self._path is None:
            return None
        try:
            request = json.loads(self._path.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            return int(ExitCode.STOPPED)  # half a request is still a request
        wanted = request.get("exit_code") if isinstance(request, dict) else None
        return int(ExitCode.TIME_LIMIT) if wanted == ExitCode.TIME_LIMIT else int(ExitCode.STOPPED)
