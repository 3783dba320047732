"""Flips one byte in the newest committed checkpoint, as a bad disk would."""

from __future__ import annotations

import time
from pathlib import Path

from trainrun_api.contract import CheckpointLayout
from trainrun_api.store_files import newest_committed, read_claims

SAVE_WAIT_SECONDS = 10.0
"""A save that is being written while all workers are held ends by itself; a dead one never does."""


def corrupt_newest(checkpoints: Path) -> str:
    """Flip a byte in the middle of the largest file; returns a sentence on what was done."""
    _wait_for_saves(checkpoints)
    newest = newest_committed(checkpoints)
    if newest is None:
        return "no checkpoint is committed yet, so none was corrupted"
    files = [p for p in newest.rglob("*") if p.is_file() and p.name != CheckpointLayout.MANIFEST]
    victim = max(files, key=lambda p: (p.stat().st_size, p.name))
    offset = victim.stat().st_size // 2
    with open(victim, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0xFF]))
    return f"byte {offset} of {newest.name}/{victim.relative_to(newest)} flipped"


def _wait_for_saves(checkpoints: Path) -> None:
    """Until no checkpoint of the newest claim is half written: it would become the newest a moment later."""
    deadline = time.monotonic() + SAVE_WAIT_SECONDS
    newest = max((int(claim["k"]) for claim in read_claims(checkpoints)), default=None)
    while newest is not None and time.monotonic() < deadline:
        folders = checkpoints.glob(f"step-*-c{newest}")
        if all((folder / CheckpointLayout.MANIFEST).exists() for folder in folders):
            return
        time.sleep(0.02)
