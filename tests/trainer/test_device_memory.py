"""What a step frees, the next one gets without the kernel."""

from __future__ import annotations

import subprocess
import sys

TENSORS, ROUNDS = 10, 5
PAGES = ROUNDS * TENSORS * (4 << 20) // 4096
PROGRAM = f"""
import ctypes, resource, torch
from trainrun_trainer.device import M_MMAP_THRESHOLD, open_device

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range({ROUNDS}):
        kept = [torch.ones(1 << 20) for _ in range({TENSORS})]
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 128 << 10)
given_back = faults()
open_device("cpu", 0, 1)
faults()
print(given_back, faults())
"""
"""Pages that the kernel handed out for tensors of 4 MiB, without and with a device."""


def test_a_cpu_keeps_what_is_freed() -> None:
    """Where glibc begins it gives all of it back each time; later that depends on what lies behind it in the heap."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert given_back >= PAGES and kept < PAGES / 100
