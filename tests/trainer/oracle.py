"""Another project's program in an environment of its own, made once for all checkouts: what ours is compared with."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MERGEKIT = "mergekit==0.1.5"
LM_EVAL = "lm-eval[hf]==0.4.13"


def cache() -> Path:
    """Environments of oracles."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "trainrun" / "oracles"


def python_with(*requirements: str) -> Path:
    """A Python with these requirements and our locked versions; the test is skipped if they cannot be installed."""
    target = cache() / " ".join(requirements)
    python = target / "bin" / "python"
    if python.exists():
        return python
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two checkouts may want it at once
        if not python.exists():
            _install(requirements, target)
    return python


def _install(requirements: Sequence[str], target: Path) -> None:
    making = target.with_name(f".{target.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    uv = [str(Path(sys.executable).parent / "uv"), "--quiet"]
    # an environment may be moved if it is only ever entered by its interpreter; compiled now, or every run would do it
    commands = [
        [*uv, "venv", "--python", sys.executable, str(making)],
        [*uv, "pip", "install", "--compile-bytecode", "--python", str(making / "bin" / "python"), "--constraints",
         str(ROOT / "requirements.lock"), *requirements],
    ]  # fmt: skip
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{target.name} cannot be installed here: {done.stderr.strip()[-300:]}")
    making.rename(target)
