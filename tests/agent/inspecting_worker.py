"""A worker that looks at the fork server it came from and writes what it sees to TEST_FACTS."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

LOADED_BEFORE = frozenset(sys.modules)
"""Modules that were there before this one was imported, so by the fork server's preload."""


def run() -> dict[str, Any]:
    """Facts of the fork server (our parent) and of what we inherited from it."""
    import torch

    server = Path(f"/proc/{os.getppid()}")
    maps = (server / "maps").read_text()
    facts = {
        "launcher_is_parent": os.getppid() == multiprocessing.parent_process().pid,
        "threads": len(list((server / "task").iterdir())),
        "libcuda": [line for line in maps.splitlines() if "libcuda.so" in line],
        "nvidia_files": [os.readlink(f) for f in (server / "fd").iterdir() if "nvidia" in os.readlink(f)],
        "cuda_initialized": torch.cuda.is_initialized(),
        "preloaded": sorted(LOADED_BEFORE),
        "nvml_based_check": os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK"),
        "own_store": os.environ.get("TORCH_DISABLE_SHARE_RDZV_TCP_STORE"),
    }
    Path(os.environ["TEST_FACTS"]).write_text(json.dumps(facts))
    return {"exit_code": 0, "cause": "Done"}
