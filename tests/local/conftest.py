"""What every local test needs: a workdir of its own, and an end for every process that the workdir records."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

WORKDIR_MARK = "LOCAL_TEST_WORKDIR"
"""Set in the environment of what a test starts; its pods and their workers inherit it."""


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for runs; whatever was started for it is killed at the end, however the test ends."""
    folder = tmp_path / "runs"
    monkeypatch.setenv(WORKDIR_MARK, str(folder))
    yield folder
    for pid in marked(folder):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def marked(folder: Path) -> list[int]:
    """Living processes that were started with this workdir in their environment, without ourselves."""
    mark = f"{WORKDIR_MARK}={folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found
