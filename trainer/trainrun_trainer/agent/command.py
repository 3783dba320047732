"""Whether a command can be started at all, asked before it is.

torchrun starts a program that does not exist, and says so in a traceback that names everything else as well; without
this question each attempt would look like an error of the program, worth another try.
"""

from __future__ import annotations

import os
import shutil
from typing import Optional, Sequence


def why_not_startable(command: Sequence[str]) -> Optional[str]:
    """The sentence that names the missing program or script; None if the command can be tried."""
    if shutil.which(command[0]) is None:
        return _no_program(command[0])
    if os.path.basename(command[0]) != "torchrun" or len(command) == 1:
        return None
    if command[1] == "--no-python":
        return _no_program(command[2]) if len(command) > 2 and shutil.which(command[2]) is None else None
    if command[1].endswith(".py") and not os.path.exists(command[1]):
        return "cannot start %r: no such file, seen from %s; correct spec.command or spec.image" % (
            command[1],
            os.getcwd(),
        )
    return None


def _no_program(name: str) -> str:
    return "cannot start %r: no such program in the image, or it may not be executed; correct spec.command" % name
