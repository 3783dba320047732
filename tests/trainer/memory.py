"""How much memory a piece of work takes, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from pathlib import Path
import torch

root = Path(sys.argv[1])
{work}

def kib(word):
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(word))

torch.set_num_threads(1)
for size in ("small", "large"):  # the small one loads what any work needs
    before = kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    work(size)
print(kib("VmHWM") - before)
"""


def peak_kib(work: str, root: Path) -> int:
    """Peak above what was there before of `work("large")`, which the program text defines, after `work("small")`."""
    program = PROGRAM.replace("{work}", work)
    done = subprocess.run([sys.executable, "-c", program, root], capture_output=True, text=True, check=True)
    return int(done.stdout)
