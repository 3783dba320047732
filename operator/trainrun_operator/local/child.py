"""The supervisor's hold on the operator process: starts it, and starts it again when it dies."""

from __future__ import annotations

import subprocess
import sys
import time

from trainrun_operator.errors import LocalModeError
from trainrun_operator.local.layout import RunDir

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 10.0
SHORT_LIFE_SECONDS = 30.0
"""A process that lived longer than this did its work: its death starts the count anew."""
STOP_SECONDS = 10.0
"""A pass takes milliseconds; a call to a silent agent a second."""
SHORT_LIVES_LIMIT = 8
"""About half a minute of back-off; an operator that dies 8 times at its start will not live the ninth time."""


class OperatorChild:
    """At most one operator process at a time."""

    def __init__(self, run_dir: RunDir) -> None:
        self._dir = run_dir
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._short_lives = 0
        self._start_at = 0.0

    @property
    def pid(self) -> int | None:
        """Pid while it lives."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def keep_alive(self) -> str | None:
        """Start it if it does not run; returns how it ended if it did. Raises LocalModeError when that is hopeless."""
        moment = time.monotonic()
        ending = None
        if self._process is not None and self._process.poll() is not None:
            ending = self._bury(moment)
        if self._process is None and moment >= self._start_at:
            self._start(moment)
        return ending

    def stop(self) -> None:
        """Let it finish the pass that it is in, and end; pods live on."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()  # it may be killed at any time
                self._process.wait()
            self._process = None

    def _start(self, moment: float) -> None:
        with open(self._dir.logs / "operator.log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trainrun_operator.local.operator_child", str(self._dir.root)],
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._started_at = moment

    def _bury(self, moment: float) -> str:
        assert self._process is not None and self._process.stdin is not None
        code = self._process.returncode
        self._process.stdin.close()
        self._process = None
        self._short_lives = self._short_lives + 1 if moment - self._started_at < SHORT_LIFE_SECONDS else 1
        if self._short_lives > SHORT_LIVES_LIMIT:
            raise LocalModeError(
                f"the operator process died {self._short_lives} times in a row, last with exit code {code}; "
                f"see {self._dir.logs / 'operator.log'}"
            )
        delay = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** (self._short_lives - 1))
        self._start_at = moment + delay
        return f"the operator process died ({_how(code)}); the next one starts in {delay:.1f} s, pods train on"


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
