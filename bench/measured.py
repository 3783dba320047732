"""CPU time, clock and peak memory of a piece of work. Standard library only: the peers' environments import it, too."""

import re
import time
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
