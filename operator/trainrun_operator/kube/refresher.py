"""Keeps the cache of runs true when kopf's watch is not: a list from time to time, and soon after it began anew."""

from __future__ import annotations

import logging
import threading

from trainrun_operator.errors import ClusterError
from trainrun_operator.kube.backoff import Backoff
from trainrun_operator.kube.kube_cluster import KubeCluster

SETTLE_SECONDS = 1.0
"""After a reconnect kopf tells of every run again within moments: one refresh serves them."""

log = logging.getLogger(__name__)


class Refresher:
    """One thread around `KubeCluster.relist`."""

    def __init__(self, cluster: KubeCluster, every_seconds: float) -> None:
        self._cluster = cluster
        self._every = every_seconds
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._backoff = Backoff()
        self._thread = threading.Thread(target=self._loop, name="refresher", daemon=True)

    def prime(self) -> None:
        """Fill the cache before anything is decided: what is not yet known must not look as if it were gone."""
        while (wait := self._refresh()) is not None:
            self._stopping.wait(wait)

    def start(self) -> None:
        """Go on in a thread until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._wanted.set()
        self._thread.join()

    def soon(self) -> None:
        """The watch has begun anew; what it missed is to be found out. Returns at once."""
        self._wanted.set()

    def _loop(self) -> None:
        wait: float | None = None
        while not self._stopping.is_set():
            if self._wanted.wait(self._every if wait is None else wait):
                self._stopping.wait(SETTLE_SECONDS)
            self._wanted.clear()
            if not self._stopping.is_set():
                wait = self._refresh()

    def _refresh(self) -> float | None:
        """List the runs; seconds to wait for the next try, or None if that succeeded."""
        try:
            self._cluster.relist("TrainingRun")
        except ClusterError as error:
            wait = self._backoff.failed()
            log.warning("the runs could not be listed, asking again in %.1f s: %s", wait, error)
            return wait
        self._backoff.worked()
        return None
