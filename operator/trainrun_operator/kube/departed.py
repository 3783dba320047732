"""The last sight of deleted pods: evidence outlives pods."""

from __future__ import annotations

from trainrun_api.contract import Label

from trainrun_operator.cluster import Key, Object

EVIDENCE_SECONDS = 600.0
"""How long a sight is kept."""
LIMIT = 20_000
"""Bound of that memory; the oldest go first."""


class Departed:
    """By run. Not thread-safe: the cache calls it under its lock."""

    def __init__(self) -> None:
        self._sights: dict[str, tuple[float, Object]] = {}
        """By uid, the oldest first."""
        self._by_run: dict[Key, dict[str, None]] = {}

    def keep(self, pod: Object, now: float) -> None:
        """A sight that was kept already is renewed, its time is not."""
        uid, run = pod["metadata"]["uid"], run_of(pod)
        if run is None:
            return
        since, _ = self._sights.get(uid, (now, pod))
        self._sights[uid] = (since, pod)
        self._by_run.setdefault(run, {})[uid] = None
        self._forget(now)

    def of_run(self, run: Key, now: float) -> list[Object]:
        """The run's pods, in the order in which they went."""
        self._forget(now)
        return [self._sights[uid][1] for uid in self._by_run.get(run, ())]

    def _forget(self, now: float) -> None:
        """What is too old or too much."""
        while self._sights:
            uid, (since, pod) = next(iter(self._sights.items()))
            if since >= now - EVIDENCE_SECONDS and len(self._sights) <= LIMIT:
                return
            del self._sights[uid]
            run = run_of(pod)
            assert run is not None
            self._by_run[run].pop(uid)
            if not self._by_run[run]:
                del self._by_run[run]


def run_of(obj: Object) -> Key | None:
    """The run whose label an object carries."""
    run = (obj["metadata"].get("labels") or {}).get(Label.RUN)
    return None if run is None else Key(obj["metadata"].get("namespace", ""), run)
