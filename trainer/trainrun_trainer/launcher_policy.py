"""May a worker group be restarted in place? Pure: failures in, verdict out.

A crash or a signal may be cured by a new process on the same device; a contract code never is. Every launcher decides
alone about what went wrong below itself, and a launcher that may not restart closes the rendezvous, which ends the
attempt for all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

MAX_RESTARTS_WITHOUT_CHECKPOINT = 2
MAX_COLLATERAL_WITHOUT_CHECKPOINT = 2 * MAX_RESTARTS_WITHOUT_CHECKPOINT
"""A launcher whose workers only lost their peer leaves the verdict to the peer's launcher, but not for ever."""


@dataclass(frozen=True)
class Failure:
    """One worker's abnormal end."""

    rank: int
    local_rank: int
    exit_code: int
    message: str
    fingerprint: str
    failed_monotonic: float
    step: int | None = None
    signal: int | None = None
    collateral: bool = False
    """It only lost the connection to a peer that failed first."""


@dataclass(frozen=True)
class RestartBudget:
    """What happened since the last new committed checkpoint."""

    durable_step: int | None = None
    restarts: int = 0
    collateral: int = 0
    seen: frozenset[tuple[str, int | None]] = field(default_factory=frozenset)

    def after(self, failure: Failure, durable_step: int | None) -> tuple[RestartBudget, str | None]:
        """The budget after this failure, and None if the group may be restarted, else the reason why not."""
        budget = self
        if durable_step is not None and durable_step != self.durable_step:
            budget = replace(self, durable_step=durable_step, restarts=0, collateral=0)
        if failure.collateral:
            spent = replace(budget, collateral=budget.collateral + 1)
            if budget.collateral >= MAX_COLLATERAL_WITHOUT_CHECKPOINT:
                return spent, f"the peers failed {spent.collateral} times without a new checkpoint"
            return spent, None
        sight = (failure.fingerprint, failure.step)
        spent = replace(budget, restarts=budget.restarts + 1, seen=budget.seen | {sight})
        if sight in budget.seen:
            return spent, f"the same failure ({failure.fingerprint}) came again at the same step"
        if budget.restarts >= MAX_RESTARTS_WITHOUT_CHECKPOINT:
            return spent, f"{budget.restarts} in-place restarts brought no new checkpoint"
        return spent, None


def first_cause(failures: list[Failure]) -> Failure:
    """The failure that began it: a signal, then an exception of its own, then a lost peer; then the lower rank."""
    return min(failures, key=lambda f: (f.collateral, f.signal is None, f.rank))
