"""Fencing: each start of a worker group takes the next claim number, exclusively, in the store.

A claim names its parent checkpoint. Readers follow the newest claim's chain (`trainrun_api.lineage`);
writers look for a newer claim before each manifest and each deletion, and stop when they find one.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from trainrun_api.contract import SCHEMA, CheckpointLayout

from trainrun_trainer.errors import Fenced, StorageRefused
from trainrun_trainer.storage import Storage


@dataclass(frozen=True)
class Owner:
    """Who takes a claim."""

    run_uid: str
    attempt: int
    generation: int


@dataclass(frozen=True)
class Parent:
    """Checkpoint that a worker group starts from."""

    step: int
    claim: int


@dataclass(frozen=True)
class Claim:
    """The right to write, until a higher number exists."""

    k: int
    owner: Owner
    parent: Parent | None


def read_claims(storage: Storage) -> list[dict[str, Any]]:
    """All claims, by number. Raises StorageRefused if one cannot be read: then nobody may decide."""
    claims = []
    for name in storage.list(CheckpointLayout.CLAIMS):
        path = f"{CheckpointLayout.CLAIMS}/{name}"
        try:
            claims.append(json.loads(storage.get(path)))
        except ValueError as error:
            raise StorageRefused(f"{path} is not JSON ({error}); restore it, or start in an empty folder") from error
    return sorted(claims, key=lambda claim: int(claim["k"]))


def refuse_if_overtaken(claims: list[dict[str, Any]], owner: Owner) -> None:
    """Raise Fenced if a later attempt of this run has already claimed the store."""
    for claim in claims:
        if claim["run_uid"] == owner.run_uid and int(claim["attempt"]) > owner.attempt:
            raise Fenced(
                f"attempt {owner.attempt} may not write: claim {claim['k']} belongs to attempt {claim['attempt']}"
            )


def try_claim(storage: Storage, claims: list[dict[str, Any]], owner: Owner, parent: Parent | None) -> Claim | None:
    """Take the number after the newest in `claims`; None if somebody else took it first."""
    refuse_if_overtaken(claims, owner)
    k = 1 + max((int(c["k"]) for c in claims), default=0)
    body = {
        "schema": SCHEMA, "k": k, **asdict(owner), "parent": None if parent is None else asdict(parent),
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }  # fmt: skip
    if not storage.put_exclusive(CheckpointLayout.claim(k), json.dumps(body).encode()):
        return None
    return Claim(k, owner, parent)


def refuse_if_fenced(storage: Storage, claim: Claim) -> None:
    """Raise Fenced if a newer claim exists. Called before each manifest and each deletion."""
    newest = max((int(n.removesuffix(".json")) for n in storage.list(CheckpointLayout.CLAIMS)), default=0)
    if newest > claim.k:
        raise Fenced(f"claim {claim.k} is over: claim {newest} has taken the checkpoint storage")
