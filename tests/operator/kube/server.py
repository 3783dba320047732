"""An HTTP server with scripted answers: what an API server or an agent may say at its worst."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Answer = tuple[int, Any]


@dataclass
class Request:
    """What was asked."""

    method: str
    path: str
    body: Any


@dataclass
class Script:
    """Answers in order; the last one is repeated."""

    answers: list[Answer]
    requests: list[Request] = field(default_factory=list)
    port: int = 0


def status(code: int, reason: str, message: str = "said the server") -> Answer:
    """An error as the API server says it."""
    return code, {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


@contextmanager
def serving(
    *answers: Answer,
    react: Callable[[Request], None] = lambda request: None,
    answer: Callable[[Request], Answer] | None = None,
) -> Iterator[Script]:
    """Serve on a loopback port: the answers in order, or what `answer` says to each request."""
    script = Script([*answers])

    class Handler(http.server.BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            request = Request(self.command, self.path, json.loads(raw) if raw else None)
            script.requests.append(request)
            react(request)
            if answer is not None:
                code, body = answer(request)
            else:
                code, body = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    script.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
