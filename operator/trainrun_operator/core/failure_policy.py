"""What a finding leads to: restart or the end of the run, when, where, and on whose budget.

Ledgers run side by side, one per fingerprint of a cause, and live in status.ledgers. Preemption, node faults and
requested stops spend nothing. The user's own rules come first, then the table of causes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from trainrun_api.v1alpha1 import FailureRule, TrainingRunSpec, TrainingRunStatus

from trainrun_operator.core.backoff import restart_delay_seconds
from trainrun_operator.core.verdict import Finding

LEDGERS_KEPT = 50
"""Status is bounded; the oldest ledgers give way."""

BACKOFF_LEDGER = "backoff"
"""Consecutive failures of the program without a newer checkpoint."""

STORM_LEDGER = "storm"
STORM_FREE = 3
"""Consecutive free restarts without a newer checkpoint, and how many of them start at once."""

MESSAGE_LIMIT = 600
"""Characters of evidence kept in status; the log has the rest."""


@dataclass(frozen=True)
class CausePolicy:
    """What one cause means unless a user's rule says otherwise."""

    spends: bool
    """Counts towards failurePolicy.maxRestarts."""
    backs_off: bool = False
    """A failure of the program: the next attempt waits."""
    sightings: int | None = None
    """The run fails at this many sightings of one fingerprint at the same step; 1: at once."""
    moves: bool = False
    """The node of the failed pod is avoided from now on."""
    guards_storm: bool = False
    """Free, but somebody or something may do it again and again: from the fourth in a row without a newer checkpoint
    on, the next attempt waits."""
    replays_elsewhere: bool = False
    """The next attempt avoids as many of these nodes as capacity allows."""
    advice: str = ""
    """What a person should do when the run fails of it."""


CAUSES: dict[str, CausePolicy] = {
    "ProgramError": CausePolicy(
        True, True, 2, advice="The same error at the same step will come again: fix the program."
    ),
    "EndedEarly": CausePolicy(True, True),
    "Unexplained": CausePolicy(True, True),
    "Unknown": CausePolicy(True, True),
    "SegmentationFault": CausePolicy(True, True),
    "Aborted": CausePolicy(True, True),
    "Killed": CausePolicy(True),
    "Terminated": CausePolicy(False, guards_storm=True),
    "PeerLost": CausePolicy(False, guards_storm=True),
    "Stopped": CausePolicy(False, guards_storm=True),
    "TimeLimit": CausePolicy(
        False, sightings=3, advice="Attempts end before they get past this step: raise spec.maxAttemptSeconds."
    ),
    "BadConfig": CausePolicy(False, sightings=1, advice="Correct spec.config."),
    "BadData": CausePolicy(False, sightings=1, advice="Correct the data that the message names."),
    "CommandNotFound": CausePolicy(False, sightings=1, advice="Correct spec.command or spec.image."),
    "ImageUnavailable": CausePolicy(False, sightings=1, advice="Correct spec.image or the pull secret."),
    "ContainerUncreatable": CausePolicy(
        False, sightings=1, advice="Create what the message names, or correct the template."
    ),
    "DeviceOutOfMemory": CausePolicy(True, True, 2, advice="Lower config.micro_batch_rows or config.data.row_tokens."),
    "OOMKilled": CausePolicy(True, True, 2, advice="Raise the memory limit in spec.workers.template."),
    "DeviceSuspect": CausePolicy(False, moves=True),
    "NumericalFault": CausePolicy(
        True,
        sightings=2,
        replays_elsewhere=True,
        advice="It came again on other nodes: lower the learning rate or skip the data.",
    ),
    "NoUsableCheckpoint": CausePolicy(
        False, sightings=1, advice="No checkpoint can be read: restore one, or start a new run."
    ),
    "StorageRefused": CausePolicy(True, True),
    "NeverStarted": CausePolicy(
        True, sightings=2, advice="Read the pods' logs; raise health.startupTimeoutSeconds if it is only slow."
    ),
    "Stalled": CausePolicy(True),
    "MemberSilent": CausePolicy(False),
    "Evicted": CausePolicy(False),
    "StorageEvicted": CausePolicy(
        True, sightings=2, advice="Raise the ephemeral-storage limit in spec.workers.template."
    ),
    "Preempted": CausePolicy(False),
    "Drained": CausePolicy(False),
    "PodDeleted": CausePolicy(False, guards_storm=True),
    "JobDeleted": CausePolicy(False, guards_storm=True),
    "NoEvidence": CausePolicy(False, guards_storm=True),
    "NodeLost": CausePolicy(False, moves=True),
    "NodeMarked": CausePolicy(False, moves=True),
}
"""Every cause that a verdict can name."""


@dataclass(frozen=True)
class Ruling:
    """What follows from a finding."""

    fails_run: bool
    spends: bool
    delay_seconds: float
    moves: bool
    replays_elsewhere: bool
    action: str
    """Sentence for people: what is done, and what is left."""
    ledgers: dict[str, Any]


def rule_on(finding: Finding, spec: TrainingRunSpec, status: TrainingRunStatus, step: int | None) -> Ruling:
    """Apply the user's rules, then the table; `step` is where the attempt stood."""
    policy = CAUSES[finding.cause]
    entry = _sighted(finding, status, finding.step if finding.step is not None else step)
    ledgers = {**status.ledgers, _fingerprint(finding): entry}
    chosen = _user_rule(finding, spec)
    if chosen is not None:
        policy = _overridden(policy, chosen)
    if policy.sightings is not None and entry["count"] >= _allowed(finding, policy):
        by = f"failurePolicy rule {chosen.name!r}: the run ends." if chosen else policy.advice
        return Ruling(True, False, 0.0, policy.moves, False, by, _bounded(ledgers))
    limit = spec.failure_policy.max_restarts
    if policy.spends and status.restarts >= limit:
        spent = f"failurePolicy.maxRestarts={limit} is spent; raise it in a new run, which goes on from the checkpoint."
        return Ruling(True, False, 0.0, policy.moves, False, spent, _bounded(ledgers))
    delay = 0.0
    if policy.backs_off or policy.guards_storm:
        name = BACKOFF_LEDGER if policy.backs_off else STORM_LEDGER
        ledgers[name] = _in_a_row(status, name)
        delay = restart_delay_seconds(ledgers[name]["count"] - (0 if policy.backs_off else STORM_FREE))
    action = _restart_sentence(policy, delay, status.restarts, limit)
    return Ruling(False, policy.spends, delay, policy.moves, policy.replays_elsewhere, action, _bounded(ledgers))


def refined(finding: Finding) -> Finding:
    """Eviction for lack of ephemeral storage is the program's doing, other evictions are the node's."""
    if finding.cause == "Evicted" and "ephemeral" in finding.evidence:
        return Finding(**{**finding.__dict__, "cause": "StorageEvicted"})
    return finding


def _allowed(finding: Finding, policy: CausePolicy) -> int:
    """A program error is only known to repeat if it has a fingerprint; before any step it gets one more try."""
    assert policy.sightings is not None
    if finding.cause != "ProgramError" or policy.sightings == 1:
        return policy.sightings
    if finding.fingerprint is None:
        return 1_000_000  # nothing to compare: the budget alone limits it
    return policy.sightings if finding.step is not None else policy.sightings + 1


def _fingerprint(finding: Finding) -> str:
    return f"{finding.cause}/{finding.fingerprint}" if finding.fingerprint else finding.cause


def _sighted(finding: Finding, status: TrainingRunStatus, step: int | None) -> dict[str, Any]:
    """The fingerprint's ledger with this sighting; another step starts a new count."""
    old = status.ledgers.get(_fingerprint(finding))
    is_same = isinstance(old, dict) and old.get("step") == step
    count = int(old.get("count", 0)) if isinstance(old, dict) and is_same else 0
    return {"count": count + 1, "step": step, "attempt": status.attempt}


def _in_a_row(status: TrainingRunStatus, name: str) -> dict[str, Any]:
    """Ends of a kind since the last one that had seen a newer checkpoint."""
    old = status.ledgers.get(name)
    checkpoint = status.checkpoint.step
    is_same = isinstance(old, dict) and old.get("checkpoint") == checkpoint
    count = int(old.get("count", 0)) if isinstance(old, dict) and is_same else 0
    return {"count": count + 1, "checkpoint": checkpoint, "attempt": status.attempt}


def _user_rule(finding: Finding, spec: TrainingRunSpec) -> FailureRule | None:
    for rule in spec.failure_policy.rules:
        if rule.on_causes and finding.cause not in rule.on_causes:
            continue
        if rule.on_exit_codes and finding.exit_code not in rule.on_exit_codes:
            continue
        if rule.on_log_pattern is not None and not re.search(rule.on_log_pattern, finding.log_tail):
            continue
        return rule
    return None


def _overridden(policy: CausePolicy, rule: FailureRule) -> CausePolicy:
    if rule.action == "FailRun":
        return CausePolicy(False, sightings=1, moves=policy.moves)
    return CausePolicy(
        spends=rule.action != "RestartIgnoringBudget",
        backs_off=policy.backs_off,
        moves=policy.moves or rule.action == "RestartElsewhere",
        replays_elsewhere=policy.replays_elsewhere,
    )


def _restart_sentence(policy: CausePolicy, delay: float, restarts: int, limit: int) -> str:
    when = f"in {delay:.0f} s" if delay else "at once"
    where = (
        ", away from that node"
        if policy.moves
        else ", on other nodes if there are any"
        if policy.replays_elsewhere
        else ""
    )
    budget = f"restart {restarts + 1} of {limit}" if policy.spends else "free of the restart budget"
    return f"It restarts {when}{where} ({budget})."


def _bounded(ledgers: dict[str, Any]) -> dict[str, Any]:
    if len(ledgers) <= LEDGERS_KEPT:
        return ledgers
    by_age = sorted(ledgers.items(), key=lambda item: _attempt_of(item[1]))
    return dict(by_age[-LEDGERS_KEPT:])


def _attempt_of(entry: object) -> int:
    """Attempt of a ledger; one that another version wrote in another shape counts as oldest."""
    attempt = entry.get("attempt") if isinstance(entry, dict) else None
    return attempt if isinstance(attempt, int) else -1
