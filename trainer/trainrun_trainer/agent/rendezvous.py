"""Waits until the rendezvous' name can be resolved: a headless Service's name exists only once its pod is Ready."""

from __future__ import annotations

import socket
import time
from typing import Callable, Optional

POLL_SECONDS = 0.2


def wait_for_name(
    endpoint: str,
    limit_seconds: float,
    should_stop: Callable[[], bool],
    resolve: Callable[[str], object] = lambda host: socket.getaddrinfo(host, None),
) -> Optional[str]:
    """None when the host of `host:port` resolves (addresses do at once), else the sentence to fail with."""
    host = endpoint.rpartition(":")[0].strip("[]") or endpoint
    if not host:
        return None
    started = time.monotonic()
    while not should_stop():
        try:
            resolve(host)
            return None
        except OSError as error:
            waited = time.monotonic() - started
            if waited >= limit_seconds:
                return (
                    "the rendezvous host %r cannot be resolved after %.0f s (%s); check that the pod of worker 0 runs "
                    "and that its headless Service exists" % (host, waited, error)
                )
        time.sleep(POLL_SECONDS)
    return None
