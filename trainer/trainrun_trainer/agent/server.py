"""`GET /progress` and `GET /metrics`, and nothing else. No state is changed by a request."""

from __future__ import annotations

import errno
import json
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Dict

REQUEST_SECONDS = 5.0
"""A client that is silent for so long is dropped."""
MAX_REQUESTS = 32
"""Requests answered at once; more are told 503, so that a scan cannot starve the training of memory."""


class ListenError(Exception):
    """The agent cannot listen; the message says which setting to change."""


class Server(ThreadingHTTPServer):
    """Serves two callables. Binding happens at once, answering after `start`.

    The host "" is every address, also of a pod that has only IPv6.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self, host: str, port: int, progress: Callable[[bool], Dict[str, Any]], metrics: Callable[[], str]
    ) -> None:
        self.progress = progress
        self.metrics = metrics
        self.slots = threading.BoundedSemaphore(MAX_REQUESTS)
        if ":" in host or (host == "" and socket.has_dualstack_ipv6()):
            self.address_family = socket.AF_INET6
        place = host or "any address"
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ListenError(
                    "cannot listen on %s port %d: %s; check TRAINRUN_AGENT_HOST" % (place, port, error)
                ) from error
            raise ListenError(
                "port %d of %s is in use, so this pod's agent cannot answer; end the process that holds it, or set "
                "TRAINRUN_AGENT_PORT to a free port (with hostNetwork, each pod of a node needs its own)"
                % (port, place)
            ) from error

    def server_bind(self) -> None:
        """As the base class, without its reverse look-up of our own name, which may hang without DNS.

        An IPv6 socket hears IPv4 as well, whatever the machine's default.
        """
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def start(self) -> None:
        """Answer in a thread of our own."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.5}, name="http", daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = REQUEST_SECONDS

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if not self.server.slots.acquire(blocking=False):
            self._answer(503, "text/plain", "too many requests at once")
            return
        try:
            if path == "/progress":
                answer = self.server.progress("scope=pod" not in query.split("&"))
                self._answer(200, "application/json", json.dumps(answer))
            elif path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4; charset=utf-8", self.server.metrics())
            else:
                self._answer(404, "text/plain", "there are /progress and /metrics")
        finally:
            self.server.slots.release()

    def _answer(self, code: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a poll every 30 s would drown the program's log."""
