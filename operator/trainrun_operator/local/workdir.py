"""One supervisor per workdir, and one operator process per run."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from trainrun_operator.errors import LocalModeError


class WorkdirInUseError(LocalModeError):
    """Another supervisor holds the workdir."""


class FileLock:
    """An exclusive lock that ends with this process: the descriptor is inherited by no child."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def take(self) -> bool:
        """Take it if it is free; the holder's pid is in the file."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        return True

    def wait(self) -> None:
        """Take it when it becomes free."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def holder(self) -> str:
        """Pid of the holder, as it wrote it."""
        return self._path.read_text().strip() or "unknown"

    def close(self) -> None:
        """Give it back."""
        os.close(self._fd)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def lock_workdir(workdir: Path, lock_name: str) -> FileLock:
    """Take the workdir's lock. Raises WorkdirInUseError with the holder's pid."""
    lock = FileLock(workdir / lock_name)
    if not lock.take():
        holder = lock.holder()
        lock.close()
        raise WorkdirInUseError(
            f"{workdir} is in use by process {holder}; wait for it, stop it, or give this run another --workdir"
        )
    return lock
