"""When a node is lost, marked or only suspected, and which nodes an attempt avoids.

NotReady alone is a suspicion: the run is hurt only if the node's agent is silent and the step has not moved
since. Unknown health values count as bad.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from trainrun_api.v1alpha1 import TrainingRunStatus

from trainrun_operator.core import spares
from trainrun_operator.core.observed import REFUSED, NodeFacts, NodesFacts, PodFacts
from trainrun_operator.core.situation import Situation
from trainrun_operator.core.times import from_text

HELD_SHARE = 0.10
HELD_NODES = 2
"""More than max(2, 10%) of the nodes NotReady at once is a common cause (network, control plane), not bad nodes."""

HELD_SECONDS = 600.0
"""A common cause that lasts longer is a real loss: then each node is judged by its own evidence again."""

UNHEARD_SECONDS = 30.0
"""NotReady time after which a node counts as lost if no agent of the attempt was ever heard; time before a pod came to
the node does not count. A scheduler places pods by what it knew before an API outage."""

TOLD_SECONDS = 3.0
"""A suspicion is watched at once and told when it lasts: a node that is lost gets its verdict one asked agent later,
and each run that a rack takes with it would write a status more just then."""

SPARED = "where a worker is on it, a spare takes its place"
"""Why a node of a run with spares is only suspected: one sentence, since what is known of it changes by the second."""

FLAP_SECONDS = 600.0
"""A blamed node is used again when it has been Ready and out of the run for this long."""

EXCLUDED_KEPT = 100
"""Bound of status.nodes.excluded."""


@dataclass(frozen=True)
class NodeVerdicts:
    """What is known against the nodes of the open attempt: name -> a sentence's end."""

    lost: dict[str, str]
    marked: dict[str, str]
    suspect: dict[str, str]


def judge(situation: Situation) -> NodeVerdicts:
    """Sort the attempt's deviating nodes."""
    verdicts = NodeVerdicts({}, {}, {})
    nodes = situation.observed.nodes
    without_seat = spares.left_out(situation)
    for pod in situation.pods:
        node = nodes.deviating.get(pod.node or "")
        if node is None or (pod.has_ended and not pod.is_departed):
            continue
        if not (node.exists and node.ready is True) and (pod in without_seat or spares.goes_on_without(situation, pod)):
            verdicts.suspect[node.name] = SPARED
        elif pod in without_seat:
            continue
        elif not node.exists:
            verdicts.lost[node.name] = "its Node object is gone"
        elif node.ready is not True:
            _judge_not_ready(situation, pod, node, verdicts)
        elif node.mark and not pod.has_ended and spares.mark_waits_until(situation, pod) is None:
            verdicts.marked[node.name] = f"HyperPod marks it {node.mark}" + (f", {node.fault}" if node.fault else "")
    return verdicts


def named(situation: Situation, name: str) -> str:
    """A node as people know it: on HyperPod the instance group is left when the name has gone with the node."""
    node = situation.observed.nodes.deviating.get(name)
    return f"{name} (instance group {node.instance_group})" if node is not None and node.instance_group else name


def _judge_not_ready(situation: Situation, pod: PodFacts, node: NodeFacts, verdicts: NodeVerdicts) -> None:
    why_not = _why_not_lost(situation, pod, node)
    report = f"; HyperPod reports {node.fault}" if node.fault else ""
    if why_not is not None and situation.current.spares:
        why_not = SPARED
    if why_not is None:
        verdicts.lost[node.name] = f"it is not Ready, its agent does not answer and the step stands still{report}"
    else:
        verdicts.suspect[node.name] = f"{why_not}{report}"


def _why_not_lost(situation: Situation, pod: PodFacts, node: NodeFacts) -> str | None:
    """The reason to wait, or None: the node is lost."""
    now, since = situation.now, node.not_ready_since or situation.now
    if node.is_stale:
        return "nothing was heard of it since the API server answers again"
    if is_held(situation.observed.nodes, now):
        return "too many nodes are not Ready at once for single verdicts"
    agents = situation.observed.progress.agents.values()
    if all(a.heard_at is None for a in agents):
        patience = UNHEARD_SECONDS + (spares.TAKEOVER_SECONDS if situation.current.spares else 0.0)
        waited = (now - _unheard_since(pod, since)).total_seconds() >= patience
        return None if waited else "no agent of this attempt was heard yet"
    step_at = situation.last_step_at
    if step_at is not None and step_at > since + timedelta(seconds=spares.STEP_TOLERANCE_SECONDS):
        return "the run made steps since then"
    agent = situation.agent(pod.index)
    if agent is None or agent.silent_since is None:
        return "its agent answers, or was not asked yet"
    if agent.blind_because == REFUSED:
        return "it refuses connections, so it is there: no agent listens on it yet, or no longer"
    return None


def _unheard_since(pod: PodFacts, not_ready_since: datetime) -> datetime:
    return max(not_ready_since, pod.scheduled_at or pod.created_at)


def is_held(nodes: NodesFacts, now: datetime) -> bool:
    """Whether a common cause is likelier than that many bad nodes."""
    not_ready = [n for n in nodes.deviating.values() if n.exists and n.ready is not True]
    if len(not_ready) <= max(HELD_NODES, HELD_SHARE * nodes.total):
        return False
    newest = max((n.not_ready_since for n in not_ready if n.not_ready_since), default=now)
    return (now - newest).total_seconds() < HELD_SECONDS


def is_verdict_pending(situation: Situation) -> bool:
    """Whether a node of the attempt cannot be judged yet, for a bounded time: stale, or held by a common cause."""
    used = {p.node for p in situation.living}
    doubtful = [n for n in situation.observed.nodes.deviating.values() if n.name in used and n.exists and not n.ready]
    return any(n.is_stale for n in doubtful) or (bool(doubtful) and is_held(situation.observed.nodes, situation.now))


def told_at(situation: Situation, suspect: Iterable[str]) -> datetime:
    """When people are told of the first of these suspicions; one of unknown age at once."""
    known = (situation.observed.nodes.deviating[name].not_ready_since for name in suspect)
    return min((since or situation.now) + timedelta(seconds=TOLD_SECONDS if since else 0.0) for since in known)


def wake_for(situation: Situation) -> datetime | None:
    """When a suspicion may turn into a verdict by time alone."""
    times = []
    for pod in situation.pods:
        node = situation.observed.nodes.deviating.get(pod.node or "")
        if node is not None and node.ready is not True and node.not_ready_since is not None:
            since = node.not_ready_since
            times.append(since + timedelta(seconds=HELD_SECONDS))
            times.append(_unheard_since(pod, since) + timedelta(seconds=UNHEARD_SECONDS))
    return min((t for t in times if t > situation.now), default=None)


def excluded_now(status: TrainingRunStatus, nodes: NodesFacts, now: datetime) -> tuple[str, ...]:
    """Nodes that a new attempt avoids: blamed ones, except those that are well again for a while.

    The scheduler avoids what is not Ready or gone by itself. A pod that waits for want of nodes may take such a node
    the moment it comes back: where there is no spare, nothing else would ever end the wait.
    """
    return tuple(
        n
        for n in status.nodes.excluded
        if _takes_pods(nodes.deviating.get(n)) and not _is_well_again(nodes.deviating[n], _left_at(status, n), now)
    )


def _takes_pods(node: NodeFacts | None) -> bool:
    return node is not None and node.exists and node.ready is True


def _left_at(status: TrainingRunStatus, name: str) -> datetime | None:
    """When the run last gave up a node."""
    ends = [from_text(a.ended_at) for a in status.attempts if name in a.nodes]
    return max((e for e in ends if e is not None), default=None)


def _is_well_again(node: NodeFacts, left_at: datetime | None, now: datetime) -> bool:
    if node.mark or node.ready_since is None:
        return False
    since = max(node.ready_since, left_at) if left_at is not None else node.ready_since
    return (now - since).total_seconds() >= FLAP_SECONDS


def with_excluded(status: TrainingRunStatus, names: tuple[str, ...]) -> TrainingRunStatus:
    """Add nodes to the run's list, newest last, bounded."""
    kept = [n for n in status.nodes.excluded if n not in names]
    excluded = [*kept, *names][-EXCLUDED_KEPT:]
    return status.model_copy(update={"nodes": status.nodes.model_copy(update={"excluded": excluded})})


def replay_exclusions(used: list[str], excluded: tuple[str, ...], nodes: NodesFacts, replicas: int) -> tuple[str, ...]:
    """As many of the used nodes as may be avoided once without leaving too few for the gang."""
    spare = max(0, usable(nodes, excluded) - replicas)
    candidates = [n for n in used if n not in excluded and not _is_unusable(nodes.deviating.get(n))]
    return tuple(candidates[:spare])


def usable(nodes: NodesFacts, excluded: Iterable[str]) -> int:
    """Nodes that exist, are Ready, unmarked and not cordoned, and that the run does not avoid. Whether something else
    holds them is not known: an upper bound of what it could get."""
    avoided = set(excluded)
    present = [n for n in nodes.deviating.values() if n.exists]
    return nodes.total - sum(n.name in avoided or _is_unusable(n) for n in present)


def _is_unusable(node: NodeFacts | None) -> bool:
    return node is not None and node.exists and (node.ready is not True or bool(node.mark) or node.is_cordoned)
