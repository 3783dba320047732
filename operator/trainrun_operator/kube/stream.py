"""A watch of the API server: one JSON object per line, as they happen, until the server or we end it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import TracebackType

import urllib3

from trainrun_operator.cluster import Object
from trainrun_operator.errors import ClusterError, Expired, Unavailable

CHUNK_BYTES = 65_536
GONE = 410


class Stream:
    """Iterate over its events in one thread; `shut` may be called from any."""

    def __init__(self, answer: urllib3.HTTPResponse, call: str) -> None:
        self._answer = answer
        self._call = call

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._answer.close()

    def __iter__(self) -> Iterator[Object]:
        """Events, bookmarks included. Raises Expired, Unavailable (also when nothing was said for too long)."""
        try:
            for line in self._lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _error(event["object"], self._call)
                yield event
        except (urllib3.exceptions.HTTPError, ValueError, KeyError, OSError) as error:
            raise Unavailable(f"{self._call}: cut off ({type(error).__name__})") from error

    def shut(self) -> None:
        """Let a reader that waits see the end at once."""
        try:
            self._answer.shutdown()
        except (ValueError, OSError, RuntimeError):
            return  # it has ended by itself

    def _lines(self) -> Iterator[bytes]:
        rest = b""
        for chunk in self._answer.stream(CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines


def _error(status: Object, call: str) -> ClusterError:
    """The API server's last word on a watch."""
    text = f"{call}: {status.get('message') or status.get('reason') or 'ended with an error'}"
    return Expired(text) if status.get("code") == GONE else Unavailable(text)
