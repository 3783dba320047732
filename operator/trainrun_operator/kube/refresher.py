"""Keeps the cache true when watches are not: a complete list from time to time, and soon after a watch began anew."""

from __future__ import annotations

import logging
import threading

from trainrun_operator.errors import ClusterError
from trainrun_operator.kube.kube_cluster import KubeCluster

SETTLE_SECONDS = 1.0
"""After a reconnect all kinds are listed anew at about the same time: one refresh serves them."""
RETRY_FIRST_SECONDS = 0.5
RETRY_LONGEST_SECONDS = 8.0
"""Back-off, doubling, while the cluster cannot be listed: a blip costs little, an outage no storm of lists."""

log = logging.getLogger(__name__)


class Refresher:
    """One thread around `KubeCluster.refresh`."""

    def __init__(self, cluster: KubeCluster, every_seconds: float) -> None:
        self._cluster = cluster
        self._every = every_seconds
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._failures = 0
        self._thread = threading.Thread(target=self._loop, name="refresher", daemon=True)

    def prime(self) -> None:
        """Fill the cache before anything is decided: what is not yet known must not look as if it were gone."""
        while not self._refreshed():
            self._stopping.wait(self._retry_seconds())

    def start(self) -> None:
        """Go on in a thread until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._wanted.set()
        self._thread.join()

    def soon(self) -> None:
        """A watch has begun anew; what it missed is to be found out. Returns at once."""
        self._wanted.set()

    def _loop(self) -> None:
        wait = self._every
        while not self._stopping.is_set():
            if self._wanted.wait(wait):
                self._stopping.wait(SETTLE_SECONDS)
            self._wanted.clear()
            if self._stopping.is_set():
                return
            wait = self._every if self._refreshed() else self._retry_seconds()

    def _refreshed(self) -> bool:
        try:
            self._cluster.refresh()
        except ClusterError as error:
            self._failures += 1
            log.warning("the cluster could not be listed, asking again in %.1f s: %s", self._retry_seconds(), error)
            return False
        self._failures = 0
        return True

    def _retry_seconds(self) -> float:
        return min(RETRY_LONGEST_SECONDS, RETRY_FIRST_SECONDS * 2.0 ** (self._failures - 1))
