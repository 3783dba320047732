"""Which checkpoints to delete. Pure; only the newest claim asks."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Stored:
    """A checkpoint folder below `checkpoint.path`."""

    step: int
    claim: int


def to_delete(
    history: Iterable[Stored],
    strays: Iterable[Stored],
    keep_last: int,
    keep_every_steps: int | None,
    protected: Collection[Stored],
    proven: Collection[Stored],
) -> list[Stored]:
    """Folders to delete, oldest first.

    `history`: committed checkpoints that the newest claim's chain counts. They go when they are not
    among the newest `keep_last`, no multiple of `keep_every_steps`, not in `protected` (the newest
    claim's parent), and older than the newest *proven* one, which stays. Without a proven one nothing
    of the history goes. `strays`: folders outside the history; they go unless protected.
    """
    ordered = sorted(history)
    newest_proven = max((c for c in ordered if c in proven), default=None)
    doomed = [c for c in sorted(strays) if c not in protected]
    if newest_proven is not None:
        doomed += [
            c
            for c in ordered[: max(0, len(ordered) - keep_last)]
            if c < newest_proven and c not in protected and not (keep_every_steps and c.step % keep_every_steps == 0)
        ]
    return doomed
