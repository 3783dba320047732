"""From which checkpoint a worker group starts, and the claim that goes with it. Rank 0 decides.

The newest claim's own valid checkpoints come first, then its parent's chain; what an older claim
committed beyond that parent does not exist for a reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trainrun_api import lineage
from trainrun_api.contract import CheckpointLayout

from trainrun_trainer.claims import Claim, Owner, Parent, read_claims, refuse_if_overtaken, try_claim
from trainrun_trainer.errors import ConfigError, NoUsableCheckpoint, StorageRefused
from trainrun_trainer.manifest import Invalid, read_manifest, read_whole
from trainrun_trainer.retention import Stored
from trainrun_trainer.storage import Storage

CHANGEABLE = frozenset({"total_steps", "eval", "export", "activation_checkpointing", "parallel", "threads_per_worker"})
"""What another attempt may change: length, cadences, memory, and placement (which may change bits; that is said)."""
INVALID_LIMIT = 2
"""This many invalid checkpoints above the newest valid one are no accident: a person must look."""
CLAIM_TRIES = 20
"""Lost races for a claim number before giving up; two groups at once lose at most a few."""


@dataclass(frozen=True)
class ResumePolicy:
    """spec.resume."""

    start: Literal["Latest", "Never", "Step", "Run"] = "Latest"
    step: int | None = None
    run: str | None = None
    path: str | None = None
    """checkpoint.path of that run."""
    stage: str | None = None
    """Of a run of several: whose result is its result."""

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ResumePolicy:
        """From the JSON that the operator passes on."""
        start = raw.get("from", raw.get("from_", "Latest"))
        return cls(start, raw.get("step"), raw.get("run"), raw.get("path"), raw.get("stage"))


@dataclass(frozen=True)
class Start:
    """Where a worker group begins: a claim, and a manifest to load (None: random start)."""

    claim: Claim
    manifest: dict[str, Any] | None
    skipped: tuple[str, ...] = ()
    """Why newer checkpoints were passed over."""


def history(storage: Storage, claims: list[dict[str, Any]]) -> list[Stored]:
    """Checkpoint folders that the newest claim's chain counts, newest first (committed or not)."""
    spans = lineage.chain(claims)
    found = []
    for stored in stored_checkpoints(storage):
        for order, span in enumerate(spans):
            if span[0] == stored.claim and lineage.holds(span, stored.step):
                found.append((order, -stored.step, stored))
    return [stored for _, _, stored in sorted(found)]


def stored_checkpoints(storage: Storage) -> list[Stored]:
    """All checkpoint folders of the store."""
    parsed = [CheckpointLayout.parse_step_dir(name) for name in storage.list("")]
    return [Stored(*p) for p in parsed if p is not None]


def take_start(storage: Storage, policy: ResumePolicy, owner: Owner) -> Start:
    """Choose the parent and take the next claim; again if somebody else was faster.

    Raises Fenced, NoUsableCheckpoint, StorageRefused or ConfigError.
    """
    for _ in range(CLAIM_TRIES):
        claims = read_claims(storage)
        refuse_if_overtaken(claims, owner)
        manifest, skipped = _choose(storage, policy, owner, claims)
        parent = None if manifest is None else Parent(manifest["step"], manifest["claim"])
        claim = try_claim(storage, claims, owner, parent)
        if claim is not None:
            return Start(claim, manifest, tuple(skipped))
    raise StorageRefused(
        f"no claim could be taken in {CLAIM_TRIES} tries: other worker groups keep taking the next one"
    )


def _choose(
    storage: Storage, policy: ResumePolicy, owner: Owner, claims: list[dict[str, Any]]
) -> tuple[dict[str, Any] | None, list[str]]:
    is_first = not any(c["run_uid"] == owner.run_uid for c in claims)
    candidates = history(storage, claims)
    if policy.start in ("Never", "Run") and is_first and candidates:
        raise ConfigError(
            f"resume.from={policy.start}, but checkpoint.path already holds checkpoints of another run; choose an "
            "empty path"
        )
    if policy.start == "Step" and is_first:
        return _exactly(storage, candidates, policy.step), []
    return _newest_valid(storage, candidates)


def _newest_valid(storage: Storage, candidates: list[Stored]) -> tuple[dict[str, Any] | None, list[str]]:
    skipped: list[str] = []
    for stored in candidates:
        found = _validate(storage, stored)
        if isinstance(found, Invalid):
            skipped.append(found.reason)
        elif found is not None:
            if len(skipped) < INVALID_LIMIT:
                return found, skipped
            break
    if skipped:
        raise NoUsableCheckpoint(
            f"{len(skipped)} committed checkpoint(s) are invalid, newest first: {'; '.join(skipped)}. "
            "Training on from something much older or from nothing is a person's decision: restore one of them, "
            "or start a new run with resume.from=Step"
        )
    return None, []


def _exactly(storage: Storage, candidates: list[Stored], step: int | None) -> dict[str, Any]:
    for stored in candidates:
        if stored.step == step:
            found = _validate(storage, stored)
            if isinstance(found, Invalid):
                raise NoUsableCheckpoint(f"resume.step={step}: {found.reason}")
            if found is not None:
                return found
    steps = sorted({c.step for c in candidates})
    raise NoUsableCheckpoint(f"resume.step={step}: no such checkpoint; there are {steps or 'none'}")


def _validate(storage: Storage, stored: Stored) -> dict[str, Any] | Invalid | None:
    found = read_manifest(storage, stored.step, stored.claim)
    if isinstance(found, dict):
        return read_whole(storage, found) or found
    return found
