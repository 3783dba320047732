"""What a process heard that no object holds: agents' answers, refusals, outages.

It is evidence with an age, never memory of a decision: a restarted operator starts deaf and asks again.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from trainrun_api.contract import UNDERSTOOD_SCHEMAS, Progress

from trainrun_operator.cluster import Key, ProgressAnswer
from trainrun_operator.core.observed import AgentFacts, ProgressFacts, Refusal

SAME_ROUND = timedelta(seconds=1)
"""Answers within this time belong to one round of questions."""

TROUBLES_KEPT = 50
"""Different refusals that are told of one run; a sentence that changes each time must not fill the log."""


@dataclass
class Senses:
    """Shared by the poller (writes) and gather (reads); thread-safe."""

    peer_silent_seconds: float
    outage_memory_seconds: float
    _progress: dict[Key, ProgressFacts] = field(default_factory=dict)
    _refusals: dict[Key, Refusal] = field(default_factory=dict)
    _troubles: dict[Key, set[str]] = field(default_factory=dict)
    _outage_since: datetime | None = None
    _reachable_since: datetime | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def progress(self, key: Key, attempt: int) -> ProgressFacts:
        """What was heard of that attempt; nothing of earlier ones."""
        with self._lock:
            known = self._progress.get(key, ProgressFacts())
        return known if known.attempt == attempt else ProgressFacts(attempt=attempt)

    def note_answer(self, key: Key, attempt: int, index: int, answer: ProgressAnswer, now: datetime) -> ProgressFacts:
        """Take over one agent's answer, or its silence; a pod's address may be that of another run's pod by now."""
        if answer.record is not None and answer.record.get("run") != key.name:
            answer = ProgressAnswer(None, "bad-answer")
        with self._lock:
            known = self._progress.get(key, ProgressFacts())
            if known.attempt != attempt:
                known = ProgressFacts(attempt=attempt)
            known = self._with_answer(known, index, answer, now)
            self._progress[key] = known
            return known

    def note_refusal(self, key: Key, refusal: Refusal) -> None:
        """The cluster refused a job."""
        with self._lock:
            self._refusals[key] = refusal

    def refusal(self, key: Key) -> Refusal | None:
        """The last refusal; it names its attempt."""
        with self._lock:
            return self._refusals.get(key)

    def is_new_trouble(self, key: Key, text: str) -> bool:
        """Whether nobody has been told that of the run yet; a refused deletion is refused again in every pass."""
        with self._lock:
            told = self._troubles.setdefault(key, set())
            if text in told or len(told) >= TROUBLES_KEPT:
                return False
            told.add(text)
            return True

    def note_api(self, now: datetime, *, is_reachable: bool) -> None:
        """The API server answered, or did not."""
        with self._lock:
            if not is_reachable:
                self._outage_since = self._outage_since or now
            elif self._outage_since is not None:
                self._outage_since, self._reachable_since = None, now

    def reachable_since(self, now: datetime) -> datetime | None:
        """End of the last API outage, while it still matters."""
        with self._lock:
            since = self._reachable_since
        if since is None or now - since > timedelta(seconds=self.outage_memory_seconds):
            return None
        return since

    def forget(self, key: Key) -> None:
        """The run is gone."""
        with self._lock:
            self._progress.pop(key, None)
            self._refusals.pop(key, None)
            self._troubles.pop(key, None)

    def _with_answer(self, known: ProgressFacts, index: int, answer: ProgressAnswer, now: datetime) -> ProgressFacts:
        agents = dict(known.agents)
        if answer.record is None:
            agents[index] = _silent(agents.get(index), answer.blind_because or "no answer", now)
            return replace(known, agents=agents)
        schema = answer.record.get("schema")
        if schema not in UNDERSTOOD_SCHEMAS:
            agents[index] = AgentFacts(heard_at=now)
            return replace(known, agents=agents, unknown_schema=schema if isinstance(schema, int) else -1)
        record = _parsed(answer.record)
        if record is None or record.attempt != known.attempt:
            agents[index] = _silent(agents.get(index), "bad-answer", now)
            return replace(known, agents=agents)
        agents[index] = AgentFacts(heard_at=now, ranks=_ranks(record, index))
        for peer, age in record.heard.items():
            if not peer.isdigit() or int(peer) == index:
                continue
            if age <= self.peer_silent_seconds:
                heard = AgentFacts(now - timedelta(seconds=age), ranks=_ranks(record, int(peer)))
                agents[int(peer)] = _heard(agents.get(int(peer)), heard)
            elif _heard_before(agents.get(int(peer)), now - timedelta(seconds=self.peer_silent_seconds)):
                agents[int(peer)] = _silent(agents.get(int(peer)), "not heard by its peer", now)
        if _is_news(known, record, now):
            known = replace(known, record=record, received_at=now)
        return replace(known, agents=agents, unknown_schema=None)


def _ranks(record: Progress, index: int) -> frozenset[int]:
    """What one pod's workers say of themselves, in its own record or in worker 0's for the whole run."""
    told = (w.get("rank") for w in record.workers if w.get("pod_index") == index)
    return frozenset(rank for rank in told if isinstance(rank, int))


def _is_news(known: ProgressFacts, record: Progress, now: datetime) -> bool:
    """Of answers to one round of questions the most advanced speaks for the run; a later round replaces it, because
    a restarted group begins at an earlier step."""
    if known.record is None or known.received_at is None or now - known.received_at > SAME_ROUND:
        return True
    return (record.generation, record.step or 0) >= (known.record.generation, known.record.step or 0)


def _silent(known: AgentFacts | None, why: str, now: datetime) -> AgentFacts:
    known = known or AgentFacts()
    return AgentFacts(known.heard_at, known.silent_since or now, why)


def _heard(known: AgentFacts | None, heard: AgentFacts) -> AgentFacts:
    """By a peer: that is news only if it was after the last answer that is known, or after the silence began."""
    assert heard.heard_at is not None
    told_at = known.silent_since or known.heard_at if known is not None else None
    if known is None or told_at is None or heard.heard_at > told_at:
        return heard
    return replace(known, heard_at=max(known.heard_at or heard.heard_at, heard.heard_at))


def _heard_before(known: AgentFacts | None, moment: datetime) -> bool:
    return known is None or known.heard_at is None or known.heard_at < moment


def _parsed(raw: dict[str, Any]) -> Progress | None:
    """The record, or None if a user's program wrote impossible types into it."""
    try:
        record = Progress.from_dict(raw)
        numbers = (record.step, record.total_steps, record.tokens, record.step_age_seconds, record.slowest_step_seconds)
        is_sound = all(n is None or isinstance(n, (int, float)) for n in numbers) and isinstance(record.heard, dict)
    except TypeError:
        return None
    return record if is_sound else None
