"""Two programs that take turns step by step, so that what the machine does in those seconds it does to both.

On a shared machine one process can be half as fast as the same process half a minute later; a pair measured one after
the other then says more about the neighbours than about the sides. Here both are alive, and one step of one is followed
by the same step of the other. Each notes its own CPU time; who waits reads from a pipe and uses none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from side_by_side import ONE_THREAD

TURN = "turn"
"""A line that says: this step is done, wake me for the next one."""


def wait_for_turn() -> None:
    """Called by a side after each step."""
    print(TURN, flush=True)
    sys.stdin.readline()


class Side:
    """One program, which runs only in its turns."""

    def __init__(self, name: str, command: Sequence[str | Path]) -> None:
        self.name = name
        self.found: dict[str, Any] | None = None
        self._errors: IO[str] = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            env={**os.environ, **ONE_THREAD},
        )  # fmt: skip

    def take_turn(self) -> None:
        """Let it go on to the end of its next step, or to its end. Ends this program if it fails."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.wait()

    def wait(self) -> None:
        """Until it has done a step, or has said its last line: what it found."""
        assert self._process.stdout is not None
        last = ""
        for line in self._process.stdout:
            if line.strip() == TURN:
                return
            last = line
        if self._process.wait() != 0:
            self._errors.seek(0)
            sys.exit(f"{self.name} failed:\n{self._errors.read()[-3000:]}")
        self.found = json.loads(last)

    def close(self) -> None:
        """End it, if something else failed."""
        self._process.kill()
        self._process.wait()
        self._errors.close()


def in_turns(commands: Mapping[str, Sequence[str | Path]]) -> dict[str, dict[str, Any]]:
    """Run all to their ends, step by step; what each has said last. Every other round goes the other way."""
    sides: list[Side] = []
    try:
        for name, command in commands.items():
            sides.append(Side(name, command))
            sides[-1].wait()  # before the next one starts, which finds the rows that this one has prepared
        order = sides
        while any(side.found is None for side in sides):
            order = order[::-1]
            for side in order:
                if side.found is None:
                    side.take_turn()
        return {side.name: side.found for side in sides if side.found is not None}
    finally:
        for side in sides:
            side.close()
