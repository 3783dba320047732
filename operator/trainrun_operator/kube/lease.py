"""One of several operators leads: it holds a Lease in its own namespace; the others stand by.

Election only saves work. Two operators at once do no harm, because every write carries its precondition, so nothing
else may rely on this module. A holder's times are never compared with ours: a record that has not changed for its
duration, by our own monotonic clock since we saw it change, has no living holder (as in client-go).
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from datetime import datetime

from trainrun_operator.clock import Clock
from trainrun_operator.cluster import Key, Object
from trainrun_operator.errors import ClusterError, Refused
from trainrun_operator.kube.client import KubeClient

DURATION_SECONDS = 15
"""Others wait this long after the holder's last word."""
RENEW_DEADLINE_SECONDS = 10.0
"""The holder gives up after this long without a renewal, so that it ends before another one leads."""
RETRY_SECONDS = 2.0
CALL_TIMEOUT_SECONDS = (2.0, 3.0)
"""To connect, and to be answered. A call that begins just before the deadline ends before DURATION is over."""

log = logging.getLogger(__name__)


def lease_name(watched_namespace: str) -> str:
    """Operators that serve the same namespace compete; those of other namespaces may live beside them."""
    return f"trainrun-operator-{watched_namespace}" if watched_namespace else "trainrun-operator"


class Election:
    """Takes the lease, renews it in a thread, and gives it back.

    `wait` waits for some seconds and is true when the election is to end; a test moves its clock there.
    """

    def __init__(
        self,
        client: KubeClient,
        clock: Clock,
        lease: Key,
        identity: str,
        *,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._lease = lease
        self._identity = identity
        self._stopping = threading.Event()
        self._wait = wait or self._stopping.wait
        self._seen: Object | None = None
        self._seen_at = 0.0
        self._renewed_at = 0.0
        self._thread: threading.Thread | None = None
        self._told = ""

    def acquire(self) -> None:
        """Stand by until we lead. Raises Refused when we may not hold a lease at all."""
        while not self._try():
            self._wait(RETRY_SECONDS)
        log.info("%s leads (lease %s/%s)", self._identity, *self._lease)

    def start(self, on_lost: Callable[[], None]) -> None:
        """Renew in a thread until `release`; `on_lost` is called there, once, when another one may lead soon."""
        self._thread = threading.Thread(target=self._hold, args=(on_lost,), name="lease", daemon=True)
        self._thread.start()

    def hold(self) -> None:
        """Renew until the lease is lost or `release` is called. Returns in both cases."""
        while not self._wait(RETRY_SECONDS):
            deadline = self._renewed_at + RENEW_DEADLINE_SECONDS
            try:
                held = self._try(deadline)
            except Refused as error:  # a right that was taken away may come back before the deadline
                self._tell(str(error))
                held = False
            if not held and (self._is_anothers() or self._clock.monotonic() > deadline):
                log.error("lease %s/%s is lost: %s", *self._lease, self._told)
                return

    def release(self) -> None:
        """Give the lease back if it is ours, so that another one leads at once; never raises."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        try:
            lease = self._client.get("Lease", self._lease)
            if lease is not None and _holder(lease) == self._identity:
                self._client.replace("Lease", {**lease, "spec": {**lease["spec"], "holderIdentity": ""}})
        except ClusterError as error:
            log.warning("the lease could not be given back, others wait for its end: %s", error)

    def _hold(self, on_lost: Callable[[], None]) -> None:
        try:
            self.hold()
        finally:  # also after a mistake of ours: a thread that has ended renews nothing
            if not self._stopping.is_set():
                on_lost()

    def _try(self, deadline: float = math.inf) -> bool:
        """Take or renew the lease if it is free or ours; no write begins after the deadline. Raises Refused."""
        asked_at = self._clock.monotonic()
        try:
            lease = self._client.get("Lease", self._lease)
            self._look(lease)
            if lease is not None and self._is_anothers() and not self._is_expired():
                self._tell(f"held by {_holder(lease)}")
                return False
            if self._clock.monotonic() > deadline:
                return False
            stored = self._write(lease)
        except Refused:
            raise
        except ClusterError as error:  # AlreadyExists and Conflict too: another one was faster, the next try sees who
            self._tell(str(error))
            return False
        self._look(stored)
        self._renewed_at = asked_at  # the earliest moment from which others may count
        self._told = ""
        return True

    def _write(self, lease: Object | None) -> Object:
        if lease is None:
            metadata = {"namespace": self._lease.namespace, "name": self._lease.name}
            fresh = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": metadata,
                "spec": self._spec({}),
            }
            return self._client.create("Lease", self._lease.namespace, fresh)
        return self._client.replace("Lease", {**lease, "spec": self._spec(lease.get("spec") or {})})

    def _spec(self, before: Object) -> Object:
        """The record with us as the holder; its times are for people."""
        now = _micro_time(self._clock.now())
        is_ours = before.get("holderIdentity") == self._identity
        return {
            **before,
            "holderIdentity": self._identity,
            "leaseDurationSeconds": DURATION_SECONDS,
            "acquireTime": before.get("acquireTime", now) if is_ours else now,
            "renewTime": now,
            "leaseTransitions": before.get("leaseTransitions", 0) + (0 if is_ours or not before else 1),
        }

    def _look(self, lease: Object | None) -> None:
        """Remember the record, and since when it has been as it is."""
        if lease is None or self._seen is None or lease.get("spec") != self._seen.get("spec"):
            self._seen, self._seen_at = lease, self._clock.monotonic()

    def _is_anothers(self) -> bool:
        return self._seen is not None and _holder(self._seen) not in ("", self._identity)

    def _is_expired(self) -> bool:
        """Unchanged for as long as its holder promised to be heard from."""
        assert self._seen is not None
        promised = (self._seen.get("spec") or {}).get("leaseDurationSeconds") or DURATION_SECONDS
        return self._clock.monotonic() - self._seen_at > float(promised)

    def _tell(self, news: str) -> None:
        """Once per change, not every 2 s."""
        if news != self._told:
            log.info("lease %s/%s: %s", *self._lease, news)
        self._told = news


def _holder(lease: Object) -> str:
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def _micro_time(when: datetime) -> str:
    """Kubernetes' MicroTime."""
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
