"""A checkpoint store as files that others write: claims, metrics, the newest checkpoint. Standard library only.

What is missing, half written or damaged is left out: readers look on while workers write. Who may believe what is for
`lineage` to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainrun_api.contract import CheckpointLayout
from trainrun_api.lineage import chain


def read_object(path: Path) -> dict[str, Any]:
    """A file's JSON object; empty when it is missing, half written or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_objects(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file of lines, without those that are unfinished or damaged."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def read_claims(store: Path) -> list[dict[str, Any]]:
    """Claims of the worker groups, in no order."""
    return [claim for path in (store / CheckpointLayout.CLAIMS).glob("*.json") if (claim := read_object(path))]


def read_metrics(store: Path) -> dict[int, list[dict[str, Any]]]:
    """Claim -> the lines that its rank 0 appended."""
    paths = (store / CheckpointLayout.METRICS).glob("c*.jsonl")
    return {int(path.stem[1:]): list(read_objects(path)) for path in paths}


def newest_committed(store: Path) -> Path | None:
    """The checkpoint that a reader would try first: the newest claim's own, else its parent's chain.

    Raises ValueError if a parent is missing.
    """
    found: dict[int, list[int]] = {}
    for path in store.glob(f"step-*/{CheckpointLayout.MANIFEST}"):
        parsed = CheckpointLayout.parse_step_dir(path.parent.name)
        if parsed is not None:
            found.setdefault(parsed[1], []).append(parsed[0])
    for claim, _, up_to in chain(read_claims(store)):
        steps = [s for s in found.get(claim, []) if up_to is None or s <= up_to]
        if steps:
            return store / CheckpointLayout.step_dir(max(steps), claim)
    return None
