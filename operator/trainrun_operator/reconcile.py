"""One pass over one run: gather, decide, act. Level-triggered: what caused the pass does not matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from trainrun_operator.act import describe, perform, write_status
from trainrun_operator.cluster import Cluster, Key
from trainrun_operator.core.decide import decide
from trainrun_operator.core.decision import CreateJob, Decision, RecordEvent
from trainrun_operator.core.observed import Observed, Refusal
from trainrun_operator.core.pod import AGENT_IMAGE
from trainrun_operator.core.times import to_text
from trainrun_operator.errors import Conflict, NotFound, Refused
from trainrun_operator.gather import Gatherer
from trainrun_operator.senses import Senses

Journal = Callable[[Mapping[str, Any]], None]
"""Takes one JSON object per decision and action."""

ActionOutcome = Literal["done", "unchanged", "refused", "failed"]
"""unchanged: it was so already; failed: the pass ends there and runs again."""

ObserveAction = Callable[[str, ActionOutcome], None]
"""Takes the action's name and what came of it."""


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
    quiet = _quiet_pass(cluster, gatherer, key)
    if quiet is not None:
        return quiet
    gathered = gatherer.gather(key)
    if gathered is None:
        senses.forget(key)
        return None
    observed = gathered.observed
    decision = decide(observed)
    run = write_status(cluster, gathered.run, decision)
    if _is_news(observed, decision):
        journal(_line(observed, decision, "decision", decision.reason, decision.message))
    for action in decision.actions:
        outcome: ActionOutcome = "failed"
        try:
            outcome = "done" if perform(cluster, run, action, agent_image) else "unchanged"
        except Refused as refused:
            outcome = "refused"
            if isinstance(action, CreateJob):
                senses.note_refusal(key, Refusal(action.attempt, str(refused), observed.now))
            if senses.is_new_trouble(key, str(refused)):
                journal(_line(observed, decision, "error", type(action).__name__, str(refused)))
        finally:
            observe_action(type(action).__name__, outcome)
        if outcome == "done" and not isinstance(action, RecordEvent):  # an Event repeats the decision's line
            journal(_line(observed, decision, "action", type(action).__name__, describe(action)))
    return decision


def _quiet_pass(cluster: Cluster, gatherer: Gatherer, key: Key) -> Decision | None:
    """A pass on what the watches have shown, if it does no more than report; None: look again, live.

    Most passes find nothing to do, or renew the progress of a run: two live reads each would be most of all calls.
    """
    glanced = gatherer.glance(key)
    if glanced is None:
        return None
    decision = decide(glanced.observed)
    if decision.actions or _is_news(glanced.observed, decision):
        return None
    try:
        run = write_status(cluster, glanced.run, decision)
    except (Conflict, NotFound):  # the watch is behind
        return None
    cluster.note_run(run)
    return decision


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
