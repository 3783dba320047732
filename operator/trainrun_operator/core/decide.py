"""`decide`: what to do about a run, from one frozen snapshot. Ordered rules, the first that applies wins.

Read the three lists from the top: they are the whole precedence. Each rule is a small pure function whose docstring is
its row in docs/rules.md. Nothing here reads a clock, does I/O, or looks at status.phase. The status that comes with a
Decision is written before any of its actions is carried out, and status is the only memory: whoever runs the next
pass, after whatever crash, decides the same.
"""

from __future__ import annotations

from dataclasses import replace

from trainrun_api.v1alpha1 import TrainingRunStatus

from trainrun_operator.core.choice import Rule
from trainrun_operator.core.decision import CreateJob, Decision, StopJob
from trainrun_operator.core.observed import Observed
from trainrun_operator.core.rules import ending, running, starting, stopping, whole_run
from trainrun_operator.core.rules.always import ALWAYS
from trainrun_operator.core.situation import open_attempt, situate
from trainrun_operator.core.status import settle

WHOLE_RUN: tuple[Rule, ...] = (
    whole_run.run_deleted,
    whole_run.run_expired,
    whole_run.run_finished,
    whole_run.spec_unworkable,
)

OPEN_ATTEMPT: tuple[Rule, ...] = (
    # is there evidence that it has ended?
    ending.stage_completed,
    ending.attempt_succeeded,
    stopping.stop_done,
    stopping.stop_under_way,
    running.members_replaced,
    running.takeover_awaited,
    ending.node_lost,  # node signals before pod signals: pods die of their nodes
    ending.contract_unknown,  # what its pods say cannot be read
    ending.attempt_failed,
    ending.container_uncreatable,
    ending.job_deleted,
    # should it end?
    stopping.stop_wanted,
    # does it lack nodes? Then no clock runs
    stopping.job_queued,
    running.job_missing,
    running.fewer_workers,
    running.gang_incomplete,
    running.waiting_for_capacity,
    # does it stand still?
    ending.never_started,
    ending.stalled,
    # it goes on
    running.node_suspected,
    running.attempt_blind,
    running.attempt_runs,
)

NO_OPEN_ATTEMPT: tuple[Rule, ...] = (
    starting.run_suspended,
    starting.previous_run_terminating,
    starting.checkpoint_path_in_use,
    starting.parent_awaited,
    starting.restart_delayed,
    starting.attempt_starts,
)


def decide(observed: Observed) -> Decision:
    """Apply the first rule that has an answer; leftovers of earlier attempts are tidied up in every pass."""
    situation = situate(observed)
    tidy = () if observed.run.is_deleted else tuple(action for rule in ALWAYS for action in rule(situation))
    rules = WHOLE_RUN + (OPEN_ATTEMPT if situation.attempt is not None else NO_OPEN_ATTEMPT)
    # the last rule of each list always answers
    name, choice = next((r.__name__, c) for r in rules if (c := r(situation)) is not None)
    return settle(situation, name, choice, tidy)


def decide_in_turn(observed: Observed) -> tuple[Decision, ...]:
    """`decide`; and where that ends an attempt and the next one starts at once, both, for a single write of status.

    They are the decisions of two passes at the same instant, the second on the status of the first, without the reads
    and the write between them, which of 80 runs that lose a rack together each would wait for. What the pass after that
    tidies up anyway, with the old job first of all, is left to it: it follows at once, but behind the starts of other
    runs. A crash after the write finds what one right after an ordinary start does, and jobs of earlier attempts.
    """
    first = decide(observed)
    if open_attempt(observed.run.status) is None or first.next_wake != observed.now:
        return (first,)
    status = TrainingRunStatus.model_validate(first.status)
    if open_attempt(status) is not None or not set(status.nodes.excluded) <= _described(observed):
        return (first,)
    second = decide(replace(observed, run=replace(observed.run, status=status)))
    if not any(isinstance(action, CreateJob) for action in second.actions):
        return (first,)
    later = [action for action in second.actions if isinstance(action, StopJob)]
    return (
        replace(first, actions=tuple(a for a in first.actions if a not in later)),
        replace(second, actions=tuple(a for a in second.actions if a not in (*later, *first.actions))),
    )


def _described(observed: Observed) -> set[str]:
    """Nodes of which the snapshot says all that the choice of nodes asks for: a well one that is blamed only now is not
    among them, and the next pass looks at it."""
    return {*observed.nodes.deviating, *observed.run.status.nodes.excluded}
