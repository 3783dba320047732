"""One pass over one run: gather, decide, act. Level-triggered: what caused the pass does not matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trainrun_operator.act import describe, perform, write_status
from trainrun_operator.cluster import Cluster, Key, Object
from trainrun_operator.core.decide import decide, decide_in_turn
from trainrun_operator.core.decision import Action, CreateJob, Decision, ForceDeletePod, RecordEvent, StopJob
from trainrun_operator.core.observed import Observed, Refusal
from trainrun_operator.core.pod import AGENT_IMAGE
from trainrun_operator.core.times import to_text
from trainrun_operator.errors import Conflict, NotFound, Refused
from trainrun_operator.gather import Gatherer
from trainrun_operator.senses import Senses

GOES_ON = frozenset({"attempt_runs", "waiting_for_capacity"})
"""Rules that tell how an attempt comes along: of 80 runs that start again, in each second of it."""

Journal = Callable[[Mapping[str, Any]], None]
"""Takes one JSON object per decision and action."""

ActionOutcome = Literal["done", "unchanged", "refused", "failed"]
"""unchanged: it was so already; failed: the pass ends there and runs again."""

ObserveAction = Callable[[str, ActionOutcome], None]
"""Takes the action's name and what came of it."""


@dataclass(frozen=True)
class Surroundings:
    """What a pass works with beside what it has gathered."""

    cluster: Cluster
    senses: Senses
    journal: Journal
    agent_image: str
    observe_action: ObserveAction


def reconcile(
    cluster: Cluster,
    gatherer: Gatherer,
    senses: Senses,
    journal: Journal,
    key: Key,
    agent_image: str = AGENT_IMAGE,
    observe_action: ObserveAction = lambda action, outcome: None,
) -> Decision | None:
    """Run one pass; None if the run is gone. Raises ClusterError; the caller runs the pass again."""
    around = Surroundings(cluster, senses, journal, agent_image, observe_action)
    quiet = _quiet_pass(around, gatherer, key)
    if quiet is not None:
        return quiet
    gathered = gatherer.gather(key)
    if gathered is None:
        senses.forget(key)
        return None
    decisions = decide_in_turn(gathered.observed)
    run = write_status(cluster, gathered.run, decisions[-1])
    cluster.note_run(run)
    for decision in decisions:
        _tell(around, gathered.observed, decision)
    for decision in decisions:
        _act(around, run, gathered.observed, decision)
    return decisions[-1]


def _quiet_pass(around: Surroundings, gatherer: Gatherer, key: Key) -> Decision | None:
    """A pass on what the watches have shown, if it does no more than tell and tidy up; None: look again, live.

    Most passes find nothing to do, renew the progress of a run, or tell how far its pods are: two live reads each would
    be most of all calls. What is left of earlier attempts is deleted by uid, and no later look would spare it.
    """
    glanced = gatherer.glance(key)
    if glanced is None:
        return None
    decision = decide(glanced.observed)
    if _needs_look(glanced.observed, decision):
        return None
    try:
        run = write_status(around.cluster, glanced.run, decision)
    except (Conflict, NotFound):  # the watch is behind
        return None
    around.cluster.note_run(run)
    _tell(around, glanced.observed, decision)
    _act(around, run, glanced.observed, decision)
    return decision


def _needs_look(observed: Observed, decision: Decision) -> bool:
    """Whether it says or does what a watch that is behind could get wrong for good."""
    if _is_news(observed, decision) and decision.rule not in GOES_ON:
        return True
    return not all(_is_harmless(action) for action in decision.actions)


def _is_harmless(action: Action) -> bool:
    """Told, or deleted by uid because its attempt is over."""
    is_abort = isinstance(action, StopJob) and action.mode == "abort"
    return is_abort or isinstance(action, ForceDeletePod | RecordEvent)


def _tell(around: Surroundings, observed: Observed, decision: Decision) -> None:
    if _is_news(observed, decision):
        around.journal(_line(observed, decision, "decision", decision.reason, decision.message))


def _act(around: Surroundings, run: Object, observed: Observed, decision: Decision) -> None:
    """Carry out the actions; one that is refused is told, and the next ones are tried."""
    for action in decision.actions:
        outcome: ActionOutcome = "failed"
        try:
            outcome = "done" if perform(around.cluster, run, action, around.agent_image) else "unchanged"
        except Refused as refused:
            outcome = "refused"
            key = Key(observed.run.namespace, observed.run.name)
            if isinstance(action, CreateJob):
                around.senses.note_refusal(key, Refusal(action.attempt, str(refused), observed.now))
            if around.senses.is_new_trouble(key, str(refused)):
                around.journal(_line(observed, decision, "error", type(action).__name__, str(refused)))
        finally:
            around.observe_action(type(action).__name__, outcome)
        if outcome == "done" and not isinstance(action, RecordEvent):  # an Event repeats the decision's line
            around.journal(_line(observed, decision, "action", type(action).__name__, describe(action)))


def _is_news(observed: Observed, decision: Decision) -> bool:
    """Whether the run's condition says something else than before."""
    ready = next((c for c in observed.run.status.conditions if c.type == "Ready"), None)
    return ready is None or (ready.reason, ready.message) != (decision.reason, decision.message)


def _line(observed: Observed, decision: Decision, kind: str, reason: str, message: str) -> dict[str, Any]:
    return {
        "time": to_text(observed.now),
        "namespace": observed.run.namespace,
        "run": observed.run.name,
        "attempt": decision.status.get("attempt"),
        "type": kind,
        "rule": decision.rule,
        "reason": reason,
        "message": message,
    }
