"""`/healthz` and `/metrics` over plain HTTP, in a thread of their own so that a busy operator still answers.

A process that stands by is well: it answers "ok", and has no state to show.
"""

from __future__ import annotations

import http.server
import logging
import socket
import sys
import threading
from collections.abc import Callable

import prometheus_client as prometheus

from trainrun_operator.clock import Clock

STUCK_SECONDS = 300.0
"""A pass that has been due for so long without being run: the process is to be started again."""

log = logging.getLogger(__name__)


class Pulse:
    """Whether the operator works, and when it was last seen working."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._trouble: Callable[[float], str | None] = lambda stuck_seconds: None
        self._alive_at = 0.0

    def follow(self, trouble: Callable[[float], str | None]) -> None:
        """Ask this from now on; before, the process stands by."""
        self._trouble = trouble

    def trouble(self) -> str | None:
        """Why the process is to be started again; None if it is well."""
        reason = self._trouble(STUCK_SECONDS)
        if reason is None:
            self._alive_at = self._clock.now().timestamp()
        return reason

    def alive_at(self) -> float:
        """Unix time of the dead-man gauge."""
        self.trouble()
        return self._alive_at


class QuietServer(http.server.ThreadingHTTPServer):
    """Says nothing on stderr about callers that went before they had their answer.

    The host "" is every address, also of a cluster that has only IPv6.
    """

    daemon_threads = True

    def __init__(self, host: str, port: int, handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        if ":" in host or (host == "" and socket.has_dualstack_ipv6()):
            self.address_family = socket.AF_INET6
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        """An IPv6 socket hears IPv4 as well, whatever the machine's default."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def handle_error(self, request: object, client_address: object) -> None:
        """A line of debug log instead of a traceback."""
        log.debug("the caller %s went: %s", client_address, sys.exception())


class HealthServer:
    """Serves until `stop`; `port` is the one that it got."""

    def __init__(
        self, host: str, port: int, registry: prometheus.CollectorRegistry, trouble: Callable[[], str | None]
    ) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code, kind, body = _answer(self.path, registry, trouble)
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                log.debug(format, *args)

        self._server = QuietServer(host, port, Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    def start(self) -> None:
        """Serve in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _answer(
    path: str, registry: prometheus.CollectorRegistry, trouble: Callable[[], str | None]
) -> tuple[int, str, bytes]:
    """Status, content type and body."""
    if path == "/metrics":
        return 200, prometheus.CONTENT_TYPE_LATEST, prometheus.generate_latest(registry)
    if path == "/healthz":
        reason = trouble()
        return (200, "text/plain", b"ok\n") if reason is None else (503, "text/plain", f"{reason}\n".encode())
    return 404, "text/plain", b"/healthz or /metrics\n"
