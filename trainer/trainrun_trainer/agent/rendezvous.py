"""Waits until the rendezvous' name can be resolved: a headless Service's name exists only once its pod is Ready.

The launcher is given the address: a name goes whenever the pod's node is not Ready for a moment, as after an outage of
the API server, and worker 0's pod keeps its address for as long as the attempt lives.
"""

from __future__ import annotations

import socket
import time
from typing import Any, Callable, NamedTuple, Optional

POLL_SECONDS = 0.2


class Found(NamedTuple):
    """The endpoint by its address, or as it was with the sentence to fail with."""

    endpoint: str
    problem: Optional[str] = None


def find_endpoint(
    endpoint: str,
    limit_seconds: float,
    should_stop: Callable[[], bool],
    resolve: Callable[[str], Any] = lambda host: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM),
) -> Found:
    """Of `host:port` as soon as the host resolves (addresses do at once)."""
    host, _, port = endpoint.rpartition(":")
    if not host:
        return Found(endpoint)
    started = time.monotonic()
    while not should_stop():
        try:
            family, _, _, _, address = resolve(host.strip("[]"))[0]
            return Found("%s:%s" % ("[%s]" % address[0] if family == socket.AF_INET6 else address[0], port))
        except OSError as error:
            waited = time.monotonic() - started
            if waited >= limit_seconds:
                return Found(
                    endpoint,
                    "the rendezvous host %r cannot be resolved after %.0f s (%s); check that the pod of worker 0 runs "
                    "and that its headless Service exists" % (host, waited, error),
                )
        time.sleep(POLL_SECONDS)
    return Found(endpoint)
