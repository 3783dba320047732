"""A modelled checkpoint store: claims, commits, and what a reader makes of them. Content is not modelled."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Saved:
    """One committed checkpoint."""

    step: int
    claim: int
    at: float
    is_valid: bool = True


@dataclass(frozen=True)
class Claim:
    """One start of a worker group."""

    k: int
    run_uid: str
    attempt: int
    generation: int
    parent: tuple[int, int] | None
    """(step, claim) of the checkpoint that it started from."""


class ClaimRefusedError(Exception):
    """A claim of a higher attempt of the same run exists: whoever asks is a zombie."""


@dataclass
class Bucket:
    """What lies under one `checkpoint.path`."""

    claims: list[Claim] = field(default_factory=list)
    saved: list[Saved] = field(default_factory=list)

    def claim(self, run_uid: str, attempt: int, generation: int) -> Claim:
        """Fence earlier starts and choose the checkpoint to start from. Raises ClaimRefusedError."""
        if any(c.run_uid == run_uid and c.attempt > attempt for c in self.claims):
            raise ClaimRefusedError(f"attempt {attempt} was superseded")
        newest = self.newest()
        parent = (newest.step, newest.claim) if newest is not None else None
        claim = Claim(len(self.claims) + 1, run_uid, attempt, generation, parent)
        self.claims.append(claim)
        return claim

    def newest(self) -> Saved | None:
        """What a reader loads: the newest claim's valid checkpoints, else its parent's chain."""
        for claim in reversed(self.claims):
            limit = self._limit_of(claim)
            own = [s for s in self.saved if s.claim == claim.k and s.is_valid and (limit is None or s.step <= limit)]
            if own:
                return max(own, key=lambda s: s.step)
        return None

    def commit(self, claim: Claim, step: int, at: float) -> bool:
        """Write a manifest, unless a newer claim exists; returns whether it counts."""
        if claim.k != len(self.claims):
            return False
        self.saved.append(Saved(step, claim.k, at))
        return True

    def corrupt_newest(self) -> None:
        """The newest readable checkpoint turns out to be bad."""
        bad = self.newest()
        self.saved = [Saved(s.step, s.claim, s.at, False) if s is bad else s for s in self.saved]

    def _limit_of(self, claim: Claim) -> int | None:
        """Steps of a claim beyond the parent of the next claim are never read."""
        later = [c for c in self.claims if c.k > claim.k]
        limits = [c.parent[0] for c in later if c.parent is not None and c.parent[1] <= claim.k]
        if len(limits) < len(later):
            return -1 if later else None  # a later claim started anew
        return min(limits, default=None)
