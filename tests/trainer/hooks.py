"""What is done to a worker before it runs: called in the child, named in a Launch."""

from __future__ import annotations

import errno
import math
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from trainrun_trainer import evaluate, step
from trainrun_trainer.storage import Before, Storage
from trainrun_trainer.stores import open_storage

from tests.trainer.ranks import kill_self

OpenStorage = Callable[[str], Storage]


def watched(before: Before) -> OpenStorage:
    """A storage whose every write is announced to `before`."""

    def opened(path: str) -> Storage:
        store: Any = open_storage(path)
        store.before = before
        return store  # type: ignore[no-any-return]

    return opened


def kill_at_write(rank: int, on_rank: int, prefix: str, nth: int, operation: str | None = None) -> OpenStorage | None:
    """SIGKILL ahead of the nth (0-based) change below `prefix`, of one kind or any."""
    seen = 0

    def before(op: str, name: str) -> None:
        nonlocal seen
        if name.startswith(prefix) and op == (operation or op):
            if seen == nth:
                kill_self()
            seen += 1

    return watched(before) if rank == on_rank else None


def kill_in_slot(rank: int, on_rank: int, nth: int) -> None:
    """SIGKILL in the nth micro-batch that the rank computes, after its backward pass."""
    _kill_after(rank == on_rank, step, "slot_backward", nth)


def kill_in_evaluation(rank: int, on_rank: int, nth: int) -> None:
    """SIGKILL after the nth source that the rank evaluates."""
    _kill_after(rank == on_rank, evaluate.HeldOut, "_source", nth)


def no_space(rank: int, on_rank: int, prefixes: list[str]) -> OpenStorage | None:
    """ENOSPC at each write of tensors or manifests below the prefixes."""

    def before(operation: str, name: str) -> None:
        if operation == "write" and name.startswith(tuple(prefixes)):
            raise OSError(errno.ENOSPC, "No space left on device", name)

    return watched(before) if rank == on_rank else None


def pause_at_write(rank: int, prefix: str, operation: str, marker: str) -> OpenStorage | None:
    """Wait ahead of one change until `<marker>.go` exists; `<marker>.here` says that we wait."""

    def before(op: str, name: str) -> None:
        if op == operation and name.startswith(prefix):
            Path(f"{marker}.here").touch()
            while not Path(f"{marker}.go").exists():
                time.sleep(0.01)

    return watched(before) if rank == 0 else None


def nan_in_slot(rank: int, on_rank: int, nth: int, marker: str) -> None:
    """The rank's nth micro-batch has a loss that is no number; `<marker><rank>` counts optimizer steps."""
    backward, calls = step.slot_backward, 0

    def poisoned(*args: Any) -> torch.Tensor:
        nonlocal calls
        loss = backward(*args)
        calls += 1
        return loss * math.nan if calls == nth + 1 else loss

    if rank == on_rank:
        step.slot_backward = poisoned
    optimizer_step = torch.optim.AdamW.step

    def counted(self: torch.optim.AdamW) -> None:
        with open(f"{marker}{rank}", "a") as steps:
            steps.write(".")
        optimizer_step(self)

    torch.optim.AdamW.step = counted


def _kill_after(is_here: bool, owner: Any, name: str, nth: int) -> None:
    inner = getattr(owner, name)
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        result = inner(*args, **kwargs)
        if is_here and calls == nth:
            kill_self()
        calls += 1
        return result

    setattr(owner, name, counted)


def file_too_large(rank: int, on_rank: int, prefixes: list[str]) -> OpenStorage | None:
    """The kernel itself refuses to write more than a page to tensor files below the prefixes."""

    def before(operation: str, name: str) -> None:
        is_small = operation == "write" and name.startswith(tuple(prefixes))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096 if is_small else hard, hard))

    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    return watched(before) if rank == on_rank else None


def full_disk(rank: int, first: int, last: int) -> OpenStorage | None:
    """From the first to the last (0-based) metrics line of rank 0, nothing at all can be written."""
    lines = 0

    def before(operation: str, name: str) -> None:
        nonlocal lines
        lines += operation == "append"
        if operation in {"append", "write"} and first < lines <= last + 1:
            raise OSError(errno.ENOSPC, "No space left on device", name)

    return watched(before) if rank == 0 else None


def kill_after_unit(rank: int, nth: int) -> None:
    """SIGKILL after the nth unit of a stage that is not training."""
    from trainrun_trainer.stages import telling  # what training does not need is not preloaded

    _kill_after(rank == 0, telling.ToldUnits, "done", nth)
