"""Asks an agent for its progress over HTTP."""

from __future__ import annotations

import http.client
import json
from typing import Any

from trainrun_operator.cluster import ProgressAnswer
from trainrun_operator.core.observed import REFUSED

LIMIT_BYTES = 4_000_000
"""A record of 8,192 workers fits in it; an answer that is longer is none of ours."""


def ask(host: str, port: int, *, timeout_seconds: float) -> ProgressAnswer:
    """`GET /progress` there. Never raises."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_seconds)
    try:
        connection.request("GET", "/progress")
        response = connection.getresponse()
        body = response.read(LIMIT_BYTES)
        record: Any = json.loads(body)
        if response.status != http.client.OK or not isinstance(record, dict):
            return ProgressAnswer(None, "bad-answer")
        return ProgressAnswer(record)
    except TimeoutError:
        return ProgressAnswer(None, "timeout")
    except ConnectionError:
        return ProgressAnswer(None, REFUSED)
    except OSError:
        return ProgressAnswer(None, "no-route")
    except (ValueError, http.client.HTTPException):
        return ProgressAnswer(None, "bad-answer")
    finally:
        connection.close()
