"""Finds the run that a command is about."""

from __future__ import annotations

from pathlib import Path

from trainrun_operator.errors import LocalModeError
from trainrun_operator.local.layout import RunDir


def find_run(workdir: Path, name: str | None) -> RunDir:
    """The named run, or the only one. Raises LocalModeError with the names that exist."""
    names = sorted(path.parent.name for path in workdir.glob("*/status.json"))
    if name is None and len(names) == 1:
        return RunDir(workdir.resolve() / names[0])
    if name in names:
        return RunDir(workdir.resolve() / name)
    if not names:
        raise LocalModeError(f"{workdir} holds no run; start one with trainrun run FILE, or name another --workdir")
    wanted = f"{workdir} holds no run {name}" if name else f"{workdir} holds {len(names)} runs"
    raise LocalModeError(f"{wanted}; name one of {', '.join(names)}")
