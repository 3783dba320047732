"""An in-memory store of Kubernetes objects that keeps the API server's promises.

`FakeCluster` (tests, simulator) and `LocalCluster` (local mode) both stand on it, so that what they do to
resource versions, uids, generations, graceful deletion and ownership is written once. It knows nothing about
training. Every object goes in and comes out as a copy: nobody can change the store by changing a dict.
"""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from trainrun_operator.cluster import Key, Kind, Object, WatchEvent
from trainrun_operator.errors import AlreadyExists, Conflict, NotFound

DEFAULT_GRACE_SECONDS = 30
"""What the API server assumes when neither the deletion nor the pod names a grace period."""

CLUSTER_SCOPED = frozenset({"Node"})
"""Kinds without a namespace; their key has an empty one."""

STATUS_AT_CREATION = frozenset({"Node"})
"""Kinds whose status may come with their creation; elsewhere only `replace_status` writes it."""


class ObjectKey(NamedTuple):
    """Names one object of the store."""

    kind: str
    namespace: str
    name: str


Persist = Callable[[ObjectKey, Object | None], None]
"""Called under the store's lock for each change; None means that the object is gone."""


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as the API server writes times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_CONTAINERS = frozenset({dict, list})


def copy_json(value: Any) -> Any:
    """A deep copy of JSON; several times faster than `copy.deepcopy`, which the simulator feels."""
    if type(value) is dict:
        return {k: copy_json(v) if type(v) in _CONTAINERS else v for k, v in value.items()}
    if type(value) is list:
        return [copy_json(v) if type(v) in _CONTAINERS else v for v in value]
    return value


class ObjectStore:
    """Objects by kind, namespace and name; thread-safe; listeners hear changes in their order."""

    def __init__(
        self,
        now: Callable[[], datetime],
        *,
        new_uid: Callable[[], str] = lambda: str(uuid.uuid4()),
        persist: Persist | None = None,
    ) -> None:
        self._now = now
        self._new_uid = new_uid
        self._persist = persist
        self._lock = threading.RLock()
        self._objects: dict[ObjectKey, Object] = {}
        self._version = 0
        self._listeners: list[Callable[[WatchEvent], None]] = []
        self._undelivered: deque[WatchEvent] = deque()
        self._is_delivering = False

    def load(self, objects: Iterable[Object]) -> None:
        """Take over objects that an earlier process persisted: no events, versions go on from the highest."""
        with self._lock:
            for obj in objects:
                self._objects[_key_of(obj)] = copy_json(obj)
                self._version = max(self._version, int(obj["metadata"]["resourceVersion"]))

    def subscribe(self, listener: Callable[[WatchEvent], None]) -> None:
        """Call `listener` after every change from now on, outside the lock, in the order of the changes."""
        with self._lock:
            self._listeners.append(listener)

    def get(self, kind: str, key: Key) -> Object | None:
        """The object, or None."""
        with self._lock:
            found = self._objects.get(_at(kind, key))
            return copy_json(found) if found is not None else None

    def list(self, kind: str, labels: Mapping[str, str] | None = None, *, namespace: str | None = None) -> list[Object]:
        """Objects of a kind that carry all `labels`, by namespace and name."""
        wanted = (labels or {}).items()
        with self._lock:
            return [
                copy_json(obj)
                for at, obj in sorted(self._objects.items(), key=lambda item: item[0])
                if at.kind == kind
                and (namespace is None or at.namespace == namespace)
                and wanted <= (obj["metadata"].get("labels") or {}).items()
            ]

    def create(self, obj: Object) -> Object:
        """Add an object; the store fills in uid, versions and time.

        Raises AlreadyExists. Dependents whose owners are all gone are collected at once, as the garbage
        collector would do a little later.
        """
        with self._lock:
            key = _key_of(obj)
            if key in self._objects:
                raise AlreadyExists(f"{key.kind} {key.namespace}/{key.name} already exists")
            new = copy_json(obj)
            metadata = new.setdefault("metadata", {})
            if key.namespace:
                metadata["namespace"] = key.namespace
            metadata["uid"] = self._new_uid()
            metadata["generation"] = 1
            metadata["creationTimestamp"] = timestamp(self._now())
            for name in ("deletionTimestamp", "deletionGracePeriodSeconds"):
                metadata.pop(name, None)
            if key.kind not in STATUS_AT_CREATION:
                new.pop("status", None)
            if key.kind == "Pod":
                new["status"] = {"phase": "Pending"}
            self._put(key, new, "ADDED")
            result: Object = copy_json(new)
            self._collect_garbage([key])
        self._deliver()
        return result

    def replace(self, obj: Object) -> Object:
        """Replace everything but status; a changed spec raises `metadata.generation`.

        Raises NotFound, Conflict (an old resourceVersion; without one the write is unconditional).
        """
        with self._lock:
            key, current = self._current(obj)
            new = copy_json(obj)
            for name in ("uid", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
                new["metadata"].pop(name, None)
                if name in current["metadata"]:
                    new["metadata"][name] = current["metadata"][name]
            if key.namespace:
                new["metadata"]["namespace"] = key.namespace
            new.pop("status", None)
            if "status" in current:
                new["status"] = copy_json(current["status"])
            if new.get("spec") != current.get("spec"):
                new["metadata"]["generation"] = current["metadata"]["generation"] + 1
            result = self._change(key, current, new)
        self._deliver()
        return result

    def replace_status(self, obj: Object) -> Object:
        """Replace status alone. Raises NotFound, Conflict as `replace` does."""
        with self._lock:
            key, current = self._current(obj)
            new = copy_json(current)
            new["status"] = copy_json(obj.get("status") or {})
            result = self._change(key, current, new)
        self._deliver()
        return result

    def delete(self, kind: str, key: Key, *, uid: str | None = None, grace_seconds: int | None = None) -> None:
        """Delete an object. Raises NotFound, also when the object of that name has another uid.

        A pod that is bound to a node and has not ended only gets a deletionTimestamp: it stays until `remove`
        (its kubelet's last word) or a deletion with grace 0. A second deletion can only shorten the grace.
        """
        with self._lock:
            at = _at(kind, key)
            current = self._objects.get(at)
            if current is None or (uid is not None and current["metadata"]["uid"] != uid):
                raise NotFound(f"{kind} {key.namespace}/{key.name} with uid {uid or 'any'} is gone")
            self._delete(at, current, grace_seconds)
        self._deliver()

    def unlabel(self, kind: str, key: Key, label: str, *, uid: str) -> None:
        """Take a label away, if it is there. Raises NotFound, also when the object of that name has another uid."""
        found = self.get(kind, key)
        if found is None or found["metadata"]["uid"] != uid:
            raise NotFound(f"{kind} {key.namespace}/{key.name} with uid {uid} is gone")
        if (found["metadata"].get("labels") or {}).pop(label, None) is not None:
            self.replace(found)

    def remove(self, kind: str, key: Key, *, uid: str | None = None) -> None:
        """Take an object away for good; nothing happens when it is gone or has another uid."""
        with self._lock:
            at = _at(kind, key)
            current = self._objects.get(at)
            if current is not None and (uid is None or current["metadata"]["uid"] == uid):
                self._drop(at, current)
        self._deliver()

    def _delete(self, at: ObjectKey, current: Object, grace_seconds: int | None) -> None:
        grace = _grace_of(current, grace_seconds) if at.kind == "Pod" else 0
        if grace == 0:
            self._drop(at, current)
            return
        earlier = current["metadata"].get("deletionGracePeriodSeconds")
        if earlier is not None and earlier <= grace:
            return
        new = copy_json(current)
        new["metadata"]["deletionTimestamp"] = timestamp(self._now() + timedelta(seconds=grace))
        new["metadata"]["deletionGracePeriodSeconds"] = grace
        self._put(at, new, "MODIFIED")

    def _drop(self, at: ObjectKey, current: Object) -> None:
        del self._objects[at]
        self._version += 1
        last = copy_json(current)
        last["metadata"]["resourceVersion"] = str(self._version)
        if self._persist is not None:
            self._persist(at, None)
        self._tell("DELETED", at.kind, last)
        uid = current["metadata"]["uid"]
        self._collect_garbage([k for k, o in self._objects.items() if uid in _owner_uids(o)])

    def _collect_garbage(self, candidates: Iterable[ObjectKey]) -> None:
        """Delete the candidates that name owners of which none exists any more."""
        living = {obj["metadata"]["uid"] for obj in self._objects.values()}
        for at in candidates:
            obj = self._objects.get(at)
            if obj is None:
                continue
            owners = _owner_uids(obj)
            if owners and not owners & living:
                self._delete(at, obj, None)

    def _current(self, obj: Object) -> tuple[ObjectKey, Object]:
        key = _key_of(obj)
        current = self._objects.get(key)
        metadata = obj["metadata"]
        if current is None or metadata.get("uid", current["metadata"]["uid"]) != current["metadata"]["uid"]:
            raise NotFound(f"{key.kind} {key.namespace}/{key.name} is gone")
        seen = metadata.get("resourceVersion")
        if seen is not None and seen != current["metadata"]["resourceVersion"]:
            raise Conflict(f"{key.kind} {key.namespace}/{key.name} has changed since it was read")
        return key, current

    def _change(self, key: ObjectKey, current: Object, new: Object) -> Object:
        """Store `new` unless it equals what is there: the API server makes no event of a write without effect."""
        new["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
        if new != current:
            self._put(key, new, "MODIFIED")
        stored: Object = copy_json(self._objects[key])
        return stored

    def _put(self, key: ObjectKey, obj: Object, event: str) -> None:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self._objects[key] = obj
        if self._persist is not None:
            self._persist(key, obj)
        self._tell(event, key.kind, obj)

    def _tell(self, event: str, kind: Kind | str, obj: Object) -> None:
        if self._listeners:
            self._undelivered.append(WatchEvent(event, kind, copy_json(obj)))  # type: ignore[arg-type]

    def _deliver(self) -> None:
        """Tell the listeners; a change made by a listener or by another thread meanwhile waits its turn."""
        with self._lock:
            if self._is_delivering:
                return
            self._is_delivering = True
        while True:
            with self._lock:
                if not self._undelivered:
                    self._is_delivering = False
                    return
                event = self._undelivered.popleft()
                listeners = list(self._listeners)
            for listener in listeners:
                listener(event)


def _at(kind: str, key: Key) -> ObjectKey:
    return ObjectKey(kind, "" if kind in CLUSTER_SCOPED else key.namespace, key.name)


def _key_of(obj: Object) -> ObjectKey:
    metadata = obj["metadata"]
    return _at(obj["kind"], Key(metadata.get("namespace") or "default", metadata["name"]))


def _owner_uids(obj: Object) -> set[str]:
    return {ref["uid"] for ref in obj["metadata"].get("ownerReferences") or []}


def _grace_of(pod: Object, asked: int | None) -> int:
    """Seconds that a deletion leaves the pod; none when no kubelet has anything left to stop."""
    spec = pod.get("spec") or {}
    if not spec.get("nodeName") or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    if asked is not None:
        return asked
    return int(spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS))
