"""Fewer workers than wanted (`spec.workers.minReplicas`), and back to all of them. Pure.

A run goes on with fewer when a part of its gang has nodes and the rest gets none; every new attempt asks for all
again, and a trained attempt is stopped for that only on evidence, ever less often if the evidence misled.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

from trainrun_api.v1alpha1 import AttemptStatus, TrainingRunSpec
from trainrun_api.world import can_run_on

from trainrun_operator.core import nodes, reasons
from trainrun_operator.core.choice import Choice
from trainrun_operator.core.situation import Situation
from trainrun_operator.core.times import from_text

GANG_INCOMPLETE = "GangIncomplete"
CAPACITY_RETURNED = "CapacityReturned"

GROW_FIRST_SECONDS = 600.0
"""Training that an attempt on fewer workers gets before it may be stopped for more: what returned must last, and two
stops in a row shall not cost more than the missing worker."""

GROW_LONGEST_SECONDS = 4 * 3600.0
"""That time doubles, up to this, with each stop after which the nodes could not be had. Such a stop also counts the
nodes anew: those that were there and not to be had are not asked for again."""

GROW_LOOK_SECONDS = 60.0
"""A node that joins is no event of a run that does not use it, so it is looked for this often."""


def trains(situation: Situation, *, wake: datetime | None, is_suspect: bool) -> Choice:
    """The open attempt makes steps, on all of its workers or on fewer."""
    workers, wanted = situation.replicas, situation.spec.workers.replicas
    facts = {"attempt": situation.current.number, "workers": workers, "wanted": wanted}
    outcome = reasons.RUNNING if workers >= wanted else reasons.RUNNING_ON_FEWER
    return Choice(outcome, facts, wake=wake, is_suspect=is_suspect)


def fewer(spec: TrainingRunSpec, at_most: int) -> int | None:
    """The largest number of workers up to that which minReplicas allows and the configuration can run on."""
    low = spec.workers.min_replicas
    if low is None:
        return None
    sizes = range(min(at_most, spec.workers.replicas), low - 1, -1)
    return next((n for n in sizes if can_run_on(spec, n)), None)


def next_replicas(spec: TrainingRunSpec, last: AttemptStatus | None) -> int:
    """Workers of the next attempt: all, unless the last one has just shown that so many cannot be had."""
    if last is None or last.cause != GANG_INCOMPLETE or last.scheduled_replicas is None:
        return spec.workers.replicas
    return fewer(spec, last.scheduled_replicas) or spec.workers.replicas


def nodes_for_all(situation: Situation, excluded: tuple[str, ...], last: AttemptStatus) -> int:
    """Good nodes that must be there before all workers can be had: as many more as the last attempt lacked."""
    scheduled = last.scheduled_replicas or 0
    return nodes.usable(situation.observed.nodes, excluded) + situation.spec.workers.replicas - scheduled


def is_known_short(situation: Situation) -> bool:
    """Whether waiting longer for the rest of the gang is vain: there are fewer good nodes than workers, or the run was
    short of nodes just before."""
    attempt, seen = situation.current, situation.observed.nodes
    if any(a.wanted_replicas is not None for a in situation.status.attempts[-2:]):
        return True
    return not nodes.is_held(seen, situation.now) and nodes.usable(seen, attempt.excluded) < situation.replicas


def may_grow_at(situation: Situation) -> datetime | None:
    """When the open attempt may be stopped for more workers; None: it runs on all, has not trained yet, or a queue
    gave it its nodes (and might not give it more)."""
    attempt = situation.current
    first = from_text(attempt.first_step_at)
    if attempt.nodes_for_all is None or first is None or situation.observed.run.has_queue or attempt.last_queued_at:
        return None
    ends = [a.cause for a in situation.status.attempts]
    in_vain = sum(pair == (CAPACITY_RETURNED, GANG_INCOMPLETE) for pair in pairwise(ends))
    return first + timedelta(seconds=min(GROW_LONGEST_SECONDS, GROW_FIRST_SECONDS * 2.0**in_vain))


def returned(situation: Situation) -> str | None:
    """The sentence that says why the attempt is stopped for more workers; None: it is not."""
    attempt, allowed_at = situation.current, may_grow_at(situation)
    if allowed_at is None or situation.now < allowed_at:
        return None
    seen, wanted = situation.observed.nodes, situation.spec.workers.replicas
    have = nodes.usable(seen, nodes.excluded_now(situation.status, seen, situation.now))
    if wanted <= situation.replicas or have < (attempt.nodes_for_all or 0):
        return None
    return f"it runs on {situation.replicas} of {wanted} workers, and enough good nodes for all are there ({have})."


def look_again_at(situation: Situation) -> datetime | None:
    """When returned capacity is looked for next."""
    allowed_at = may_grow_at(situation)
    if allowed_at is None:
        return None
    return max(allowed_at, situation.now + timedelta(seconds=GROW_LOOK_SECONDS))
