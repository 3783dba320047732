"""The manifest of a checkpoint: written last, read first. A folder without a valid one does not exist."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import xxhash
from trainrun_api.contract import CheckpointLayout

from trainrun_trainer.storage import Storage

SEAL = "manifest_xxh3"


@dataclass(frozen=True)
class Invalid:
    """A committed checkpoint that must not be used, and why."""

    reason: str


def seal(fields: dict[str, Any]) -> bytes:
    """JSON of a manifest with a hash over itself, so that a flipped bit in it shows."""
    body = {k: v for k, v in fields.items() if k != SEAL}
    return json.dumps({**body, SEAL: _hash(body)}, sort_keys=True, indent=1).encode()


def config_hash(config: dict[str, Any]) -> str:
    """Short name of a configuration."""
    return xxhash.xxh3_64_hexdigest(json.dumps(config, sort_keys=True).encode())


def read_manifest(storage: Storage, step: int, claim: int) -> dict[str, Any] | Invalid | None:
    """The manifest; None if the checkpoint was never committed; Invalid if it cannot be trusted."""
    name = f"{CheckpointLayout.step_dir(step, claim)}/{CheckpointLayout.MANIFEST}"
    try:
        fields = json.loads(storage.get(name))
    except FileNotFoundError:
        return None
    except ValueError as error:
        return Invalid(f"{name} is not JSON: {error}")
    if not isinstance(fields, dict) or fields.get(SEAL) != _hash({k: v for k, v in fields.items() if k != SEAL}):
        return Invalid(f"{name} does not match its own hash")
    if (fields["step"], fields["claim"]) != (step, claim):
        return Invalid(f"{name} describes step {fields['step']} of claim {fields['claim']}")
    return fields


def read_whole(storage: Storage, fields: dict[str, Any]) -> Invalid | None:
    """Read every file of a committed checkpoint again; Invalid names the first that differs."""
    place = CheckpointLayout.step_dir(fields["step"], fields["claim"])
    for name, facts in fields["files"].items():
        try:
            found = storage.hash(f"{place}/{name}")
        except OSError as error:
            return Invalid(f"{place}/{name} cannot be read: {error.strerror}")
        if found != facts:
            return Invalid(f"{place}/{name} is not what was written: {found} against {facts}")
    return None


def _hash(body: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(body, sort_keys=True).encode())
