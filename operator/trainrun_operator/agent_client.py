"""Asks an agent for its progress over HTTP.

A thousand runs are asked every 30 s, which is most of what an operator at rest does: `http.client` with its parser of
headers took three times the CPU time for an answer of which only the status and the body matter.
"""

from __future__ import annotations

import json
import socket
from typing import Any

from trainrun_operator.cluster import ProgressAnswer
from trainrun_operator.core.observed import REFUSED

LIMIT_BYTES = 4_000_000
"""A record of 8,192 workers fits in it; an answer that is longer is none of ours."""
CHUNK_BYTES = 65_536
REQUEST = b"GET /progress HTTP/1.0\r\nHost: agent\r\n\r\n"
"""In HTTP 1.0 the end of an answer is the end of its connection."""


def ask(host: str, port: int, *, timeout_seconds: float) -> ProgressAnswer:
    """`GET /progress` there; the time-out is for the connection and for each piece of the answer. Never raises."""
    try:
        with socket.create_connection((host, port), timeout_seconds) as connection:
            connection.sendall(REQUEST)
            answer = _read(connection)
    except TimeoutError:
        return ProgressAnswer(None, "timeout")
    except ConnectionError:
        return ProgressAnswer(None, REFUSED)
    except OSError:
        return ProgressAnswer(None, "no-route")
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        record: Any = json.loads(body)
    except ValueError:
        return ProgressAnswer(None, "bad-answer")
    is_ok = head.startswith(b"HTTP/1.") and head.split(maxsplit=2)[1:2] == [b"200"]
    return ProgressAnswer(record) if is_ok and isinstance(record, dict) else ProgressAnswer(None, "bad-answer")


def _read(connection: socket.socket) -> bytes:
    """Everything until the other side closes, or more than is allowed: then it is no JSON."""
    pieces, size = [], 0
    while size <= LIMIT_BYTES and (piece := connection.recv(CHUNK_BYTES)):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)
