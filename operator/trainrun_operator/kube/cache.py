"""What the watches have shown: trimmed objects by kind, and the last sight of deleted pods.

A watch can be cut and miss a deletion, so `replace_all` (a fresh list) is its correction. Everything the cache holds is
shared with its readers, who must not change it; only an object's resourceVersion may become newer under them. It knows
neither the client nor kopf.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from trainrun_operator.cluster import Key, Kind, Object, WatchEvent, checkpoint_path
from trainrun_operator.kube.departed import Departed, run_of
from trainrun_operator.kube.trim import trimmed

Listener = Callable[[WatchEvent], None]


@dataclass
class _Shelf:
    """The objects of one kind."""

    objects: dict[Key, Object] = field(default_factory=dict)
    by_run: dict[Key, dict[Key, None]] = field(default_factory=dict)
    by_path: dict[str, dict[Key, None]] = field(default_factory=dict)
    """TrainingRuns by checkpoint path."""
    ordered: list[Object] | None = None
    """All objects by name, until one changes."""
    seen_at: float | None = None
    """Monotonic time of the watch's last word, a complete list included."""

    def put(self, obj: Object) -> None:
        """Add it, or replace its namesake."""
        key = _key(obj)
        self.pop(key)
        self.objects[key] = obj
        for index, value in self._places(obj):
            index.setdefault(value, {})[key] = None

    def pop(self, key: Key) -> None:
        """Forget the object of that name, if there is one."""
        self.ordered = None
        old = self.objects.pop(key, None)
        if old is None:
            return
        for index, value in self._places(old):
            index[value].pop(key)
            if not index[value]:
                del index[value]

    def select(self, keys: Iterable[Key]) -> list[Object]:
        """These objects by name."""
        return [self.objects[key] for key in sorted(keys)]

    def _places(self, obj: Object) -> list[tuple[dict[Any, dict[Key, None]], Any]]:
        run, path = run_of(obj), checkpoint_path(obj) if obj.get("kind") == "TrainingRun" else None
        return [(index, value) for index, value in ((self.by_run, run), (self.by_path, path)) if value is not None]


class Cache:
    """Thread-safe; listeners are called outside the lock, in the thread that brought the news."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._shelves: dict[Kind, _Shelf] = {kind: _Shelf() for kind in ("TrainingRun", "PyTorchJob", "Pod", "Node")}
        self._departed = Departed()
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` for every change from now on."""
        with self._lock:
            self._listeners.append(listener)

    def put(self, kind: Kind, obj: Object) -> bool:
        """Take over an object that exists; False if that state was known already, a newer one, or one that differs in
        nothing that is read here: most news of 2,000 nodes are heartbeats."""
        small = trimmed(kind, obj)
        with self._lock:
            self._shelves[kind].seen_at = self._monotonic()
            known = self._shelves[kind].objects.get(_key(small))
            if known is not None and _version(known) >= _version(small):
                return False
            if known is not None and _differs_by_version_only(known, small):
                known["metadata"]["resourceVersion"] = small["metadata"]["resourceVersion"]
                return False
            if known is not None and _uid(known) != _uid(small):
                self._remove(kind, known)
            self._shelves[kind].put(small)
        self._tell(WatchEvent("ADDED" if known is None else "MODIFIED", kind, small))
        return True

    def heard(self, kind: Kind) -> None:
        """The watch lives, and has no news."""
        with self._lock:
            self._shelves[kind].seen_at = self._monotonic()

    def note(self, kind: Kind, obj: Object) -> None:
        """Take over what we have written ourselves: no news, and neither is the watch's echo."""
        small = trimmed(kind, obj)
        with self._lock:
            known = self._shelves[kind].objects.get(_key(small))
            if known is not None and _uid(known) == _uid(small) and _version(known) < _version(small):
                self._shelves[kind].put(small)

    def drop(self, kind: Kind, obj: Object) -> None:
        """An object is gone; of another one with its name nothing is touched."""
        small = trimmed(kind, obj)
        with self._lock:
            known = self._shelves[kind].objects.get(_key(small))
            if known is not None and _uid(known) == _uid(small):
                self._remove(kind, known)
            self._shelves[kind].seen_at = self._monotonic()
            if kind == "Pod":
                self._departed.keep(small, self._monotonic())
        self._tell(WatchEvent("DELETED", kind, small))

    def replace_all(self, kind: Kind, objects: Iterable[Object], version: str) -> int:
        """Take over a complete list of that resourceVersion; returns how many deletions had been missed."""
        present = [trimmed(kind, obj) for obj in objects]
        uids = {_uid(obj) for obj in present}
        with self._lock:
            self._shelves[kind].seen_at = self._monotonic()
            known = list(self._shelves[kind].objects.values())
        gone = [obj for obj in known if _uid(obj) not in uids and _version(obj) <= _number(version)]
        for obj in gone:
            self.drop(kind, obj)
        for obj in present:
            self.put(kind, obj)
        return len(gone)

    def all(self, kind: Kind) -> list[Object]:
        """All objects of a kind, by name; the same list as long as none changes."""
        with self._lock:
            shelf = self._shelves[kind]
            if shelf.ordered is None:
                shelf.ordered = shelf.select(shelf.objects)
            return shelf.ordered

    def of_run(self, kind: Kind, run: Key) -> list[Object]:
        """Objects that carry the run's label, by name."""
        with self._lock:
            shelf = self._shelves[kind]
            return shelf.select(shelf.by_run.get(run, ()))

    def at_path(self, path: str) -> list[Object]:
        """TrainingRuns with this checkpoint path, by name."""
        with self._lock:
            shelf = self._shelves["TrainingRun"]
            return shelf.select(shelf.by_path.get(path, ()))

    def get(self, kind: Kind, key: Key) -> Object | None:
        """The object of that name, if it is known."""
        with self._lock:
            return self._shelves[kind].objects.get(key)

    def has(self, kind: Kind, key: Key) -> bool:
        """Whether an object of that name is known."""
        with self._lock:
            return key in self._shelves[kind].objects

    def departed(self, run: Key) -> list[Object]:
        """Last sight of the run's pods that went in the last 10 minutes."""
        with self._lock:
            return self._departed.of_run(run, self._monotonic())

    def ages_seconds(self) -> dict[str, float]:
        """Seconds since the last news of each kind that has had any."""
        now = self._monotonic()
        with self._lock:
            return {kind: now - s.seen_at for kind, s in self._shelves.items() if s.seen_at is not None}

    def _remove(self, kind: Kind, obj: Object) -> None:
        self._shelves[kind].pop(_key(obj))
        if kind == "Pod":
            self._departed.keep(obj, self._monotonic())

    def _tell(self, event: WatchEvent) -> None:
        with self._lock:
            listeners = [*self._listeners]
        for listener in listeners:
            listener(event)


def _key(obj: Object) -> Key:
    return Key(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def _uid(obj: Object) -> str:
    return str(obj["metadata"]["uid"])


def _version(obj: Object) -> int:
    return _number(obj["metadata"].get("resourceVersion", ""))


def _differs_by_version_only(known: Object, news: Object) -> bool:
    metadata = {**news["metadata"], "resourceVersion": known["metadata"].get("resourceVersion")}
    return known == {**news, "metadata": metadata}


def _number(version: str) -> int:
    """Versions of one API server are increasing numbers; anything else counts as oldest."""
    return int(version) if version.isdigit() else 0
