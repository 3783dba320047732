"""CPU time, clock and peak memory of a piece of work. Standard library only: the peers' environments import it, too."""

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def kilobytes(name: str) -> int:
    """A line of this process's status."""
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None, name
    return int(found[1])


class Measured:
    """`with Measured() as m: ...`; then `m.facts`. Memory is the growth over what was there before."""

    def __enter__(self) -> "Measured":
        self.before, self.cpu, self.wall = kilobytes("VmRSS"), time.process_time(), time.monotonic()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        return self

    def __exit__(self, *_: object) -> None:
        self.facts: dict[str, Any] = {
            "cpu_seconds": time.process_time() - self.cpu,
            "seconds": time.monotonic() - self.wall,
            "peak_bytes": 1024 * (kilobytes("VmHWM") - self.before),
        }


def in_child(work: Callable[[], object]) -> dict[str, Any]:
    """Facts of a piece of work in a fork of this process: imports are paid once, memory is fresh for each."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with Measured() as measured:
            work()
        os.write(write, json.dumps(measured.facts).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    if not answer:
        raise SystemExit("the work that was measured failed; what it said is above")
    found: dict[str, Any] = json.loads(answer)
    return found
