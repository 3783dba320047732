"""What surrounds the entry point in a worker process: signals, the end of its parents, output, facts of a crash."""

from __future__ import annotations

import gc
import importlib
import io
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from trainrun_api.contract import Env, ProgressFile

from trainrun_trainer.agent import files, proctree
from trainrun_trainer.agent.tail import redact

MESSAGE_LIMIT = 1000
_CONNECTION_WORDS = (
    "connection closed by peer",
    "connection reset by peer",
    "connection refused",
    "broken pipe",
    "connectfullmesh",
    "socket timeout",
    "timed out waiting",
    "nccl communicator was aborted",
    "remote process exited",
)
"""What gloo, NCCL and the store say when the other side went away. Such a failure is never the first cause."""


def run_worker(entry: str, progress_dir: str) -> dict[str, Any]:
    """Call `module:function` and return its outcome. An exception leaves `crash<k>.json` and goes on."""
    gc.freeze()  # what the fork server imported stays shared with it
    gc.enable()
    proctree.die_with_parent()  # torch asks for SIGINT at the parent's end, which we ignore
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # torchelastic ends a group with it; a handler would cost 30 s
    rank, local_rank = os.environ["RANK"], int(os.environ["LOCAL_RANK"])
    os.environ[Env.PROGRESS_DIR] = progress_dir  # the fork server's environment is that of its start
    sys.stdout, sys.stderr = _RankLines(1, rank), _RankLines(2, rank)
    try:
        module, _, function = entry.partition(":")
        outcome: dict[str, Any] = getattr(importlib.import_module(module), function)()
        return outcome
    except Exception as error:
        files.write_json(progress_dir, ProgressFile.crash(local_rank), crash_facts(error))
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def crash_facts(error: BaseException) -> dict[str, Any]:
    """Fingerprint (type and newest frame outside installed packages), sentence, and whether a peer was the cause."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "site-packages" not in f.filename and "/multiprocessing/" not in f.filename]
    where = "unknown"
    for place in (own or frames)[-1:]:
        where = f"{Path(place.filename).name}:{place.name}:{place.lineno}"
    text = f"{type(error).__name__}: {error}"
    return {
        "fingerprint": f"{type(error).__name__}@{where}",
        "message": redact(text)[:MESSAGE_LIMIT],
        "collateral": is_collateral(error),
        "failed_monotonic": time.monotonic(),
    }


def is_collateral(error: BaseException) -> bool:
    """True when the text says that a connection to a peer was lost; an error of the store or of a collective."""
    text = str(error).lower()
    is_comm = isinstance(error, (RuntimeError, ConnectionError, TimeoutError))
    return is_comm and any(words in text for words in _CONNECTION_WORDS)


class _RankLines(io.TextIOBase):
    """Writes whole lines, each with its rank in front, in one call, so that ranks do not mix within a line."""

    encoding = "utf-8"

    def __init__(self, fd: int, rank: str) -> None:
        self._fd = fd
        self._prefix = f"[rank {rank}] "
        self._open = ""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, text: str) -> int:
        *lines, self._open = (self._open + text).split("\n")
        if lines:
            self._emit("".join(f"{self._prefix}{line}\n" for line in lines))
        return len(text)

    def flush(self) -> None:
        if self._open:
            self._emit(f"{self._prefix}{self._open}\n")
            self._open = ""

    def _emit(self, text: str) -> None:
        data = text.encode(errors="replace")
        while data:
            data = data[os.write(self._fd, data) :]
