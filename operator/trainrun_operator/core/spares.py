"""Warm spares (`spec.workers.spares`): who holds the seats of the worker group, and who may yet take one. Pure.

The pods settle among themselves who trains: a lost member's heartbeat ends, and a spare that waits in the rendezvous
takes its seat within seconds. What is left to do here is to believe it, to remove the lost pod so that
training-operator makes the next spare, and to end the attempt after all when nobody took the seat.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from trainrun_operator.core.observed import NodeFacts, PodFacts
from trainrun_operator.core.situation import Situation
from trainrun_operator.core.stall import SILENCE_SECONDS, silence_proven_at

TAKEOVER_SECONDS = 20.0
"""From a member's silence until a spare should train in its place: 3 s until its heartbeat counts as ended, 1 s until
the seat counts as empty, the rendezvous, and two rounds of questions until it is heard."""

READY_NODE_SECONDS = 60.0
"""Nothing hurries here, and a node that died is called Ready for 40 s more: the next spare would be placed on it."""

STEP_TOLERANCE_SECONDS = 2.0
"""Times of nodes and agents have whole seconds and another clock."""

REPLACED_KEPT = 64
"""Bound of attempts[].replacedPods: as many pods as there may be spares."""


def left_out(situation: Situation) -> tuple[PodFacts, ...]:
    """Pods of a living job without a seat: spares, lost members, and those that went with their node; none while it is
    not certain who holds the seats.

    It is certain when the agents that answer hold every rank of the group.
    """
    job = situation.job
    if not situation.current.spares or job is None or job.is_deleting or job.has_failed or job.has_succeeded:
        return ()
    agents = {i: a for i, a in situation.observed.progress.agents.items() if a.silent_since is None}
    held = {rank for agent in agents.values() for rank in agent.ranks}
    if held != set(range(situation.replicas * situation.spec.workers.devices_per_worker)):
        return ()
    seated = {index for index, agent in agents.items() if agent.ranks}
    return tuple(pod for pod in _not_ended(situation) if pod.index not in seated and pod.index != 0)


def mark_waits_until(situation: Situation, pod: PodFacts) -> datetime | None:
    """Until when a mark on the pod's node waits for answers that may tell that the pod has no seat: an agent was not
    asked so far, since the operator has just begun, or it has just missed an answer.

    None: there is no mark, nothing is trained yet that a stop would cost, or the pod says that it has a seat.
    """
    node, agent = situation.observed.nodes.deviating.get(pod.node or ""), situation.agent(pod.index)
    if not situation.current.spares or situation.current.first_step_at is None or node is None or not node.mark:
        return None
    if agent is not None and agent.ranks:
        return None
    is_asked = all(situation.agent(p.index) is not None for p in situation.living if p.phase == "Running")
    until = silence_proven_at(situation) if is_asked else situation.now + timedelta(seconds=SILENCE_SECONDS)
    return until if until is not None and situation.now < until else None


def goes_on_without(situation: Situation, pod: PodFacts) -> bool:
    """Whether steps were made since the pod fell silent: where spares are, somebody else trains in its place."""
    since, step_at = situation.silent_since(pod), situation.last_step_at
    if not situation.current.spares or since is None or step_at is None:
        return False
    return step_at > since + timedelta(seconds=STEP_TOLERANCE_SECONDS)


def explaining(situation: Situation) -> tuple[PodFacts, ...]:
    """The pods whose end may be the attempt's: of one that is gone nothing follows while another trains in its place,
    also where an agent has just missed an answer and it is not certain who.
    """
    return tuple(pod for pod in situation.pods if not (pod.is_departed and goes_on_without(situation, pod)))


def gone(situation: Situation) -> tuple[tuple[PodFacts, str], ...]:
    """Pods without a seat that will not be of use again, each with the reason: their place is to be filled anew."""
    found = ((pod, _why_gone(situation, pod)) for pod in left_out(situation))
    return tuple((pod, why) for pod, why in found if why is not None)


def look_again_at(situation: Situation) -> datetime | None:
    """When a pod without a seat will have been silent, or stranded, for long enough, or a mark has waited to the end;
    None: there is none."""
    without_seat = left_out(situation)
    times = [since + _patience(situation, p) for p in without_seat if (since := situation.silent_since(p)) is not None]
    stranded = (_stranded_since(situation, pod) for pod in without_seat)
    times += [since + timedelta(seconds=SILENCE_SECONDS) for since in stranded if since is not None]
    waits = (mark_waits_until(situation, pod) for pod in situation.living)
    times += [until for until in waits if until is not None]
    return min((moment for moment in times if moment > situation.now), default=None)


def awaited_until(situation: Situation, lost: Collection[str] = ()) -> datetime | None:
    """Until when spares may still take the seats of members that are silent, or on a `lost` node and not asked since.

    None: there are not enough spares, nobody is missed, or the time is over. Worker 0 hosts the rendezvous, so its seat
    cannot be taken.
    """
    if not situation.current.spares:
        return None
    running = [pod for pod in _not_ended(situation) if pod.phase == "Running"]
    # one missed answer is a busy machine, be it a member's or that of a spare that is needed now
    missed = [p for p in running if p.is_departed or p.node in lost or _is_silent(situation, p)]
    if not missed or any(p.index == 0 for p in missed) or len(running) - len(missed) < situation.replicas:
        return None
    until = max(situation.silent_since(p) or situation.now for p in missed) + timedelta(seconds=TAKEOVER_SECONDS)
    return until if situation.now < until else None


def _not_ended(situation: Situation) -> list[PodFacts]:
    """Pods that nobody has said the end of: alive, or gone without a word."""
    return [pod for pod in situation.pods if not pod.has_ended or pod.is_departed]


def _is_silent(situation: Situation, pod: PodFacts) -> bool:
    since = situation.silent_since(pod)
    return since is not None and (situation.now - since).total_seconds() >= SILENCE_SECONDS


def _why_gone(situation: Situation, pod: PodFacts) -> str | None:
    node = situation.observed.nodes.deviating.get(pod.node or "")
    if pod.is_departed:
        return "it is gone" + _node_words(node)
    if node is not None and node.exists and node.mark:
        return f"HyperPod marks node {node.name} {node.mark}"
    stranded = _stranded_since(situation, pod)
    if stranded is not None and (situation.now - stranded).total_seconds() >= SILENCE_SECONDS:
        return "it cannot start" + _node_words(node)
    since = situation.silent_since(pod)
    if since is None or situation.now < since + _patience(situation, pod):
        return None
    return "its agent does not answer" + _node_words(node)


def _patience(situation: Situation, pod: PodFacts) -> timedelta:
    """Silence after which a pod without a seat is removed; longer on a node that nobody has called lost yet."""
    node = situation.observed.nodes.deviating.get(pod.node or "")
    is_ready = node is None or (node.exists and node.ready is True)
    return timedelta(seconds=READY_NODE_SECONDS if is_ready else SILENCE_SECONDS)


def _stranded_since(situation: Situation, pod: PodFacts) -> datetime | None:
    """Since when the node of a pod that does not run yet is not Ready: it was placed there before that was known."""
    node = situation.observed.nodes.deviating.get(pod.node or "")
    if node is None or pod.phase == "Running" or (node.exists and node.ready is True):
        return None
    return node.not_ready_since or pod.created_at


def _node_words(node: NodeFacts | None) -> str:
    if node is None or (node.exists and node.ready is True):
        return ""
    return f", and node {node.name} is {'not Ready' if node.exists else 'gone'}"
