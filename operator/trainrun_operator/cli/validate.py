"""`trainrun validate`: the API server's verdict without an API server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from trainrun_api.validate import validate_file

REFUSED = 20


def validate_files(files: Sequence[Path]) -> int:
    """One sentence per problem on stderr, one line per good file on stdout; returns the exit code."""
    code = 0
    for file in files:
        problems = validate_file(file)
        for problem in problems:
            names_file = problem.message.startswith(str(file))
            print(problem.message if names_file else f"{file}: {problem.message}", file=sys.stderr)
        if problems:
            code = REFUSED
        else:
            print(f"{file}: valid")
    return code
