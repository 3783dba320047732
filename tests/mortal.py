"""Processes of a fork server end with the tests, however those end: the server itself lives as long as any of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def end_with_the_tests() -> None:
    """To call in the fork: SIGKILL to itself as soon as the process that asked for it is gone."""
    threading.Thread(target=_wait, name="tests", daemon=True).start()


def _wait() -> None:
    tests = multiprocessing.parent_process()
    assert tests is not None
    tests.join()
    os.kill(os.getpid(), signal.SIGKILL)
