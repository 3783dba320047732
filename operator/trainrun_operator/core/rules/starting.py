"""Rules for a run without an open attempt: why the next one does not start yet, and its start."""

from __future__ import annotations

from datetime import timedelta

from trainrun_operator.core import attempts, elastic, nodes, reasons
from trainrun_operator.core.choice import Choice
from trainrun_operator.core.decision import CreateJob
from trainrun_operator.core.failure_policy import CAUSES
from trainrun_operator.core.situation import Situation
from trainrun_operator.core.times import from_text

RIVAL_SECONDS = 15.0
"""The other run's end is no event of this one, so it is looked for this often."""


PARENT_SECONDS = 15.0
"""As that of the run that this one starts from."""


def run_suspended(situation: Situation) -> Choice | None:
    """spec.suspend: nothing runs until it is false again; then the next attempt resumes."""
    if not situation.spec.suspend:
        return None
    return Choice(reasons.SUSPENDED)


def previous_run_terminating(situation: Situation) -> Choice | None:
    """Jobs or pods of a deleted run of the same name are still there: wait, then resume from its checkpoints."""
    observed = situation.observed
    left = [f"job {j.name}" for j in observed.jobs if not j.is_owned]
    left += [f"pod {p.name}" for p in observed.pods if not p.is_owned and not p.has_ended]
    if not left:
        return None
    return Choice(reasons.PREVIOUS_RUN_TERMINATING, {"leftovers": ", ".join(sorted(left)[:3])})


def checkpoint_path_in_use(situation: Situation) -> Choice | None:
    """An older live run writes to the same checkpoint.path: the younger one is refused until it is over."""
    rival = situation.observed.rival
    if rival is None:
        return None
    wake = situation.now + timedelta(seconds=RIVAL_SECONDS)
    return Choice(reasons.CHECKPOINT_PATH_IN_USE, {"rival": f"{rival.namespace}/{rival.name}"}, wake=wake)


def parent_awaited(situation: Situation) -> Choice | None:
    """resume.from: Run: it starts when that run has succeeded; one that failed or does not exist is told."""
    wanted, parent = situation.spec.resume.run, situation.observed.parent
    if wanted is None or situation.status.parent is not None:
        return None
    wake = situation.now + timedelta(seconds=PARENT_SECONDS)
    if parent is None:
        return Choice(reasons.PARENT_MISSING, {"run": wanted}, wake=wake)
    if parent.result is None:
        return Choice(reasons.PARENT_AWAITED, {"run": wanted}, wake=wake)
    if parent.result != "Succeeded":
        return Choice(reasons.PARENT_FAILED, {"run": wanted}, wake=wake)
    return None


def restart_delayed(situation: Situation) -> Choice | None:
    """A back-off is on record: after program failures 10 s doubling to 10 min, after half a gang jittered."""
    at = from_text(situation.status.next_attempt_at)
    if at is None or situation.now >= at:
        return None
    facts = {"attempt": attempts.next_number(situation.observed), "at": situation.status.next_attempt_at}
    return Choice(reasons.BACKING_OFF, facts, wake=at)


def attempt_starts(situation: Situation) -> Choice:
    """Nothing stands against it: the next attempt is put on record, then its job is created. It asks for all workers,
    unless the last one has just shown how many there are nodes for (`fewer_workers`)."""
    last = situation.status.attempts[-1] if situation.status.attempts else None
    if last is not None and last.cause == attempts.DONE:
        last = None  # of the stage before this one
    wanted, replicas = situation.spec.workers.replicas, elastic.next_replicas(situation.spec, last)
    excluded = nodes.excluded_now(situation.status, situation.observed.nodes, situation.now)
    cause = CAUSES.get(last.cause or "") if last is not None else None
    if last is not None and cause is not None and cause.replays_elsewhere:
        excluded += nodes.replay_exclusions(last.nodes, excluded, situation.observed.nodes, replicas)
    status, attempt = attempts.started(situation, excluded, replicas)
    whole = f"stage {situation.stage.name}" if situation.is_chain else "this run"
    why = f"the first of {whole}" if last is None else f"after {last.cause} of attempt {last.number}"
    share = f"{replicas} of {wanted}" if replicas < wanted else f"{replicas}"
    workers = f"{share} worker" + ("s" if wanted > 1 else "")
    facts = {"attempt": attempt.number, "workers": workers, "why": why}
    create = CreateJob(attempt.number, replicas, excluded, attempt.spares)
    return Choice(reasons.ATTEMPT_STARTED, facts, status, (create,), wake=situation.now)
